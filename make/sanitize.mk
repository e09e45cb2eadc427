# `make asan`, `make ubsan`, `make tsan`: everything with gcc's sanitizers, in
# build folders of their own; runs the unit tests and SANITIZED_SEEDS seeds of
# the simulator. $(B)/asan/flotilla, $(B)/tsan/flotilla and so on can be used
# as the plain program can. Leaks are not looked for: tests that end a
# simulated node leave what it held outside of its memory.
# (With -fsanitize=undefined gcc warns of format strings that may be NULL.)
SANITIZED_SEEDS ?= 10
UNDEFINED := -fno-sanitize-recover=undefined -Wno-format-truncation \
  -Wno-null-dereference
SANITIZED = $(MAKE) --no-print-directory B=$(B)/$@ OPT="-O1 -g" \
  N=$(SANITIZED_SEEDS) all unit sim-seeds
.PHONY: asan ubsan tsan
asan:
	+@ASAN_OPTIONS=detect_leaks=0 $(SANITIZED) \
	  SAN="-fsanitize=address,undefined $(UNDEFINED)"
ubsan:
	+@$(SANITIZED) SAN="-fsanitize=undefined $(UNDEFINED)"
tsan:
	+@TSAN_OPTIONS=suppressions=$(CURDIR)/make/tsan.supp $(SANITIZED) \
	  SAN="-fsanitize=thread"
