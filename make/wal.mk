# Measures the write-ahead log alone, on a real disk:
#   make wal-bench DIR=/var/tmp/wal-bench
$(B)/bench/%: $(B)/tests/bench/%.o $(B)/libflotilla.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(LIBS)
.PHONY: wal-bench
DIR ?= $(B)/wal-bench
wal-bench: $(B)/bench/wal_bench
	@./$(B)/bench/wal_bench $(DIR)
