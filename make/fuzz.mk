# `make fuzz [TIME=seconds for each target] [TARGET=name]`: libFuzzer with
# AddressSanitizer and UndefinedBehaviorSanitizer, from the corpus in the tree.
# New inputs gather in build/fuzz/found/NAME, crashes in build/fuzz/crash/NAME.
# `make fuzz-corpus` only runs through the corpus; `make fuzz-seeds` makes the
# corpus from samples and from what was found, as small as it goes.
FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(filter-out \
  tests/fuzz/fuzz_repair.c,$(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_PACKAGES := clang libclang-rt-14-dev
FUZZ_B := build/fuzz
TIME ?= 60
TARGET ?= $(FUZZ_TARGETS)
.SECONDARY: $(FUZZ_TARGETS:%=$(B)/tests/fuzz/fuzz_%.o) \
  $(B)/tests/fuzz/fuzz.o $(B)/tests/fuzz/fuzz_repair.o
.PHONY: fuzz fuzz-corpus fuzz-seeds fuzz-build
FUZZ_MAKE = $(MAKE) --no-print-directory B=$(FUZZ_B) CC=clang OPT="-O1 -g" \
  SAN="-fsanitize=address,undefined,fuzzer-no-link \
  -fno-sanitize-recover=undefined" fuzz-build
fuzz-build: $(FUZZ_TARGETS:%=$(B)/fuzz_%)
$(B)/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(B)/tests/fuzz/fuzz.o \
    $(B)/tests/fuzz/fuzz_repair.o $(B)/libunit.a \
    $(filter-out $(B)/tests/sim/main%.o,$(SIM_OBJ)) \
    $(B)/libflotilla.a
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -fsanitize=fuzzer -o $@ $^ $(LIBS) $(TEST_LIBS)
fuzz: deps
	@./make/deps.sh $(FUZZ_PACKAGES)
	@$(FUZZ_MAKE)
	@./tests/fuzz/fuzz.sh run $(FUZZ_B) $(TIME) $(TARGET)
fuzz-corpus: deps
	@./make/deps.sh $(FUZZ_PACKAGES)
	@$(FUZZ_MAKE)
	@./tests/fuzz/fuzz.sh corpus $(FUZZ_B) 0 $(TARGET)
fuzz-seeds:
	@$(FUZZ_MAKE)
	@./tests/fuzz/fuzz.sh seeds $(FUZZ_B) 0 $(TARGET)
