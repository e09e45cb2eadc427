# Chaos on real processes (jepsen/README.md). The checker's core is linked by
# unit tests and by the simulator too.
CHECKER_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard jepsen/checker*.c) \
  jepsen/edn.c)

$(B)/jepsen-check: $(B)/jepsen/check_main.o $(B)/jepsen/gaps.o $(CHECKER_OBJ) \
    $(B)/libflotilla.a
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LIBS)

WORKER_OBJ := $(patsubst %,$(B)/jepsen/%.o,worker_main worker_wire \
  worker_rdkafka wire_client batches load history)
$(B)/jepsen-worker: $(WORKER_OBJ) $(B)/libflotilla.a
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LIBS)
