# `make lint` runs every gate, `make lint-fast` those that take seconds;
# each gate is a target of its own. `make format` formats the sources.
LINT_DIRS := base raft partition metadata coordinator net tools jepsen tests
LINT_FILES := $(shell find $(LINT_DIRS) -name '*.[ch]' 2>/dev/null | sort)
LINT_C := $(filter %.c,$(LINT_FILES))
CLANG ?= clang
CLANG_FORMAT ?= clang-format
CLANG_TIDY ?= clang-tidy
CPPCHECK ?= cppcheck

.PHONY: lint lint-fast lint-layers lint-headers lint-symbols lint-selftest \
  lint-clang lint-deps lint-format lint-cppcheck lint-tidy format
lint-fast: lint-layers lint-headers lint-symbols lint-selftest lint-clang \
  lint-format
lint: lint-deps
	@$(MAKE) --no-print-directory lint-fast lint-cppcheck lint-tidy
lint-deps: deps
	@./make/deps.sh clang clang-format clang-tidy cppcheck

# Nothing includes upward.
lint-layers:
	@echo $@
	@tests/lint/layers.sh
# Every header compiles alone.
lint-headers: $(GEN_HEADERS)
	@echo $@
	@tests/lint/headers.sh . $(CC) $(WARN) -Wno-unused-macros -iquote . \
	  -iquote $(B)/gen
# Clock, randomness, files, sockets and threads come through base/env only.
lint-symbols: $(LIB_OBJ) $(GEN_OBJ)
	@echo $@
	@tests/lint/symbols.sh tests/lint/symbols.allow $(B) $^
# The other compiler warns of nothing either.
lint-clang: $(GEN_HEADERS) $(B)/gen/tools/commit.h
	@./make/deps.sh clang
	@echo $@
	@printf '%s\n' $(LINT_C) | xargs -P 2 -n 16 $(CLANG) $(WARN) \
	  -Wno-gnu-statement-expression -fsyntax-only -iquote . -iquote $(B)/gen
# Each of the gates above catches the faults planted for it.
lint-selftest:
	@echo $@
	@tests/lint/selftest.sh $(CC)
lint-format:
	@echo clang-format
	@$(CLANG_FORMAT) --dry-run -Werror $(LINT_FILES)
format:
	$(CLANG_FORMAT) -i $(LINT_FILES)
# (What is suppressed are its mistakes about uthash, ASSERT and what else does
# not return, and what the compiler and the sanitizers know better.)
lint-cppcheck: $(GEN_HEADERS)
	@echo cppcheck
	@$(CPPCHECK) --quiet --error-exitcode=1 --std=c11 --inline-suppr -j 2 \
	  --enable=warning,portability --suppress=missingIncludeSystem \
	  --suppress=uninitvar --suppress=nullPointerRedundantCheck \
  --suppress=nullPointerArithmeticRedundantCheck \
  --suppress=arrayIndexOutOfBoundsCond --suppress=negativeIndex \
	  --suppress=unknownMacro --suppress=pointerSize \
	  --suppress=shiftTooManyBitsSigned \
	  --suppress=uninitStructMember --suppress=internalAstError --library=tests/lint/cppcheck.cfg \
	  -D__STDC_VERSION__=201112L -I . -I $(B)/gen $(LINT_C)
lint-tidy: $(GEN_HEADERS) $(B)/gen/tools/commit.h
	@echo clang-tidy
	@$(CLANG_TIDY) --quiet $(LINT_C) -- -std=c11 -D_GNU_SOURCE -iquote . \
	  -iquote $(B)/gen 2>$(B)/tidy.err || { cat $(B)/tidy.err; exit 1; }
