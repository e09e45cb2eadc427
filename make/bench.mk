# Figures of this machine; `make bench PEER=kafka` beside Apache Kafka.
.PHONY: bench
PEER ?= none
ROUNDS_BENCH ?= 3
bench: deps-foreign
	@$(MAKE) --no-print-directory all
	@python3 tests/bench/bench.py --build $(B) --rounds $(ROUNDS_BENCH) --peer $(PEER)
