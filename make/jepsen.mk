# Chaos on real processes (jepsen/README.md). The checker's core is linked by
# unit tests and by the simulator too.
CHECKER_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard jepsen/checker*.c) \
  jepsen/edn.c)

$(B)/jepsen-check: $(B)/jepsen/check_main.o $(CHECKER_OBJ) \
    $(B)/libflotilla.a
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LIBS)

WORKER_OBJ := $(patsubst %,$(B)/jepsen/%.o,worker_main worker_wire \
  worker_rdkafka wire_client reading batches load history)
$(B)/jepsen-worker: $(WORKER_OBJ) $(B)/libflotilla.a
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LIBS)

# make jepsen TIME=60 NEMESIS=kill,pause SEED=7 NODES=5; jepsen/README.md
PACKAGES_JEPSEN := iproute2 nftables e2fsprogs util-linux strace faketime
.PHONY: jepsen jepsen-build jepsen-control
TIME ?= 60
NEMESIS ?= all
NODES ?= 3
PACE ?= normal
RATE ?= 500
JEPSEN_ARGS = --build $(B) $(if $(SEED),--seed $(SEED)) --nodes $(NODES) $(ARGS)
jepsen-build: deps
	@./make/deps.sh $(PACKAGES_JEPSEN)
	@$(MAKE) --no-print-directory all $(B)/jepsen-worker $(B)/jepsen-check \
	  $(B)/jepsen-nosync.so
jepsen: jepsen-build
	@python3 jepsen/run.py --time $(TIME) --nemesis $(NEMESIS) --pace $(PACE) \
	  --rate $(RATE) $(JEPSEN_ARGS)
# the same brokers whose syncs do nothing must be seen to lose records
jepsen-control: jepsen-build
	@python3 jepsen/run.py --control $(JEPSEN_ARGS)
$(B)/jepsen-nosync.so: jepsen/nosync.c
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -shared -fPIC -o $@ $<
