# The simulator: one seed with its event hash, or N seeds from SEED on. MODE is
# whole (whole brokers and clients) or raft (Raft groups alone: faster).
SEED ?= 1
N ?= 100
MODE ?= raft
SIM_MODE = $(if $(filter raft,$(MODE)),raft)
.PHONY: sim sim-seeds
sim: MODE := whole
sim: $(B)/sim_main
	@$(B)/sim_main $(SIM_MODE) $(SEED)
sim-seeds: $(B)/sim_main
	@$(B)/sim_main $(SIM_MODE) $(SEED) $(N)
# Seeds of whole brokers in two processes, those that once failed first; totals.
.PHONY: sim-whole
sim-whole: $(B)/sim_main
	@tests/sim/seeds.sh $(B)/sim_main $(SEED) $(N)
# Defects that the simulator alone must find (tests/fault/planted.txt).
.PHONY: planted
planted:
	@PATH="/usr/lib/ccache:$$PATH" python3 tests/fault/planted.py $(ONLY)
