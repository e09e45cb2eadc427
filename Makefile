# Flotilla's build. `make` builds; `make deps` installs what the build needs;
# `make run` and `make test` do everything by themselves.
MAKEFLAGS += -rR
CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
B ?= build
# V=1 shows the commands.
Q := $(if $(V),,@)
OPT ?= -O2 -g
WARN := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Wconversion \
  -Wsign-conversion -Wshadow -Wundef -Wmissing-prototypes -Wcast-qual -Wvla \
  -Wformat=2 -Wswitch-enum -Werror
# librdkafka's macros use what clang calls an extension.
ifneq ($(findstring clang,$(CC)),)
WARN += -Wno-gnu-statement-expression
endif
CFLAGS_ALL := $(WARN) $(OPT) -fno-omit-frame-pointer $(SAN) -iquote . -iquote $(B)/gen
RAFT_A := $(firstword $(wildcard /usr/lib/*/libraft.a))
LIBS := $(RAFT_A) -luv -lisal -lz -lsnappy -llz4 -lzstd -lpopt \
  -lsmartcols -ljansson -lrdkafka -lpthread -lm
TEST_LIBS := -lcheck -lsubunit -lrt -lpthread -lm

LIB_DIRS := base raft partition metadata coordinator net net/api
LIB_SRC := $(foreach d,$(LIB_DIRS),$(wildcard $(d)/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
TOOL_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tools/*.c))
SIM_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/*.c))
WHOLE_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/whole/*.c))
UNIT_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/unit/*.c))

.PHONY: all
all: $(B)/flotilla $(B)/libflotilla.a

include $(wildcard make/*.mk)

$(B)/libflotilla.a: $(LIB_OBJ) $(GEN_OBJ)
	@rm -f $@
	@echo "  AR   $@"
	$(Q)ar rcs $@ $^

$(B)/flotilla: $(TOOL_OBJ) $(B)/libflotilla.a
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $(TOOL_OBJ) $(B)/libflotilla.a $(LIBS)

# Each unit test file is a program of its own (tests/unit/test_x.c), linked
# with the library and with the simulator's environment.
SIM_LIB_OBJ := $(filter-out $(B)/tests/sim/main%.o,$(SIM_OBJ))
# What several of them share is a library too: a program that has a stand-in for
# part of the house must not get what needs the real one.
UNIT_COMMON := $(filter-out $(B)/tests/unit/test_%.o,$(UNIT_OBJ))
$(B)/libunit.a: $(UNIT_COMMON)
	@echo "  AR   $@"
	@rm -f $@
	$(Q)ar rcs $@ $^
$(B)/unit/%: $(B)/tests/unit/%.o $(B)/libunit.a $(SIM_LIB_OBJ) \
    $(CHECKER_OBJ) $(B)/libflotilla.a
	@mkdir -p $(@D)
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LIBS) $(TEST_LIBS)
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/test_*.c))

$(B)/sim_main: $(SIM_OBJ) $(WHOLE_OBJ) $(CHECKER_OBJ) $(B)/libflotilla.a
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $^ $(LIBS)

# Which commit the binary is of; the file changes only when that does.
COMMIT := $(shell git describe --always --dirty --exclude '*' 2>/dev/null \
  || echo unknown)
$(B)/gen/tools/commit.h: FORCE
	@mkdir -p $(@D)
	@echo '#define FLOTILLA_COMMIT "$(COMMIT)"' | cmp -s - $@ || \
	  echo '#define FLOTILLA_COMMIT "$(COMMIT)"' >$@
$(B)/tools/cli.o: $(B)/gen/tools/commit.h
.PHONY: FORCE
FORCE:

# The manual page and the completions come from the command table.
PREFIX ?= /usr/local
.PHONY: install
install: $(B)/flotilla
	install -D -m 755 $(B)/flotilla $(DESTDIR)$(PREFIX)/bin/flotilla
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	  $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
	  $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(B)/flotilla man >$(DESTDIR)$(PREFIX)/share/man/man1/flotilla.1
	$(B)/flotilla completion bash \
	  >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/flotilla
	$(B)/flotilla completion zsh \
	  >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_flotilla
	$(B)/flotilla completion fish \
	  >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/flotilla.fish

$(B)/%.o: %.c | $(GEN_HEADERS)
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

-include $(shell find $(B) -name '*.d' 2>/dev/null)

.SECONDARY: $(UNIT_OBJ) $(CHECKER_OBJ)
.PHONY: unit clean
unit: $(UNIT_BIN)
	@./tests/unit/run.sh $(UNIT_BIN)
clean:
	rm -rf $(B)
