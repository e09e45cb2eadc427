# Crash points of the store: N disk states, each recovered and judged; or the
# one state that REPLAY names; LOAD=log or store for one load only.
#   make crash-points [N=50000] [LOAD=store] [REPLAY="..."]
.PHONY: crash-points
crash-points: N = 50000
crash-points: $(B)/unit/test_crash_points
	@N=$(N) LOAD="$(LOAD)" REPLAY="$(REPLAY)" $(B)/unit/test_crash_points

# Every byte of a small log flipped, one at a time; of every other file of a
# broker too, and every sector zeroed.
.PHONY: flips
flips: $(B)/unit/test_wal $(B)/unit/test_repair \
    $(B)/unit/test_fault_loops
	@FLIPS_EVERY=1 $(B)/unit/test_wal
	@CK_RUN_CASE=every_byte SWEEP_EVERY=1 $(B)/unit/test_repair
	@CK_RUN_CASE=every_byte $(B)/unit/test_fault_loops
