# `make asan`, `make tsan`: the unit tests with gcc's sanitizers, in build
# folders of their own. Leaks are not looked for: tests that end a simulated
# node leave what it held outside of its memory.
# (With -fsanitize=undefined gcc warns of format strings that may be NULL.)
.PHONY: asan tsan
asan:
	ASAN_OPTIONS=detect_leaks=0 $(MAKE) B=$(B)/asan OPT="-O1 -g" \
	  SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined \
	  -Wno-format-truncation -Wno-null-dereference" unit
tsan:
	$(MAKE) B=$(B)/tsan OPT="-O1 -g" SAN="-fsanitize=thread" unit
