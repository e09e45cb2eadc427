# Figures of this machine. SYSTEMS=all measures Apache Kafka and NATS beside
# it, taking turns (NATS needs Go); ROWS=text takes the rows with it in the name.
.PHONY: bench
SYSTEMS ?= flotilla
ROUNDS_BENCH ?= 3
ROWS ?=
SCALE ?= 1.0
bench: deps-foreign
	@$(MAKE) --no-print-directory all
	@python3 tests/bench/bench.py --build $(B) --rounds $(ROUNDS_BENCH) \
	  --systems $(SYSTEMS) --only "$(ROWS)" --scale $(SCALE)

# Many partitions: creation, idle cost, load over all, a broker killed, restart.
# PARTS of idle, wire, rdkafka, kill, restart, again.
.PHONY: scale
PARTITIONS ?= 10000
PARTS ?= idle,wire,rdkafka,kill,restart,again
scale: all
	@python3 tests/bench/scale.py --build $(B) --partitions $(PARTITIONS) \
	  --parts $(PARTS)
