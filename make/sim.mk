# The simulator: one seed with its event hash, or N seeds from SEED on.
SEED ?= 1
N ?= 100
.PHONY: sim sim-seeds
sim: $(B)/sim_main
	@$(B)/sim_main $(SEED)
sim-seeds: $(B)/sim_main
	@$(B)/sim_main $(SEED) $(N)
