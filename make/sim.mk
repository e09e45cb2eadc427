# The simulator: one seed with its event hash, or N seeds from SEED on. MODE is
# whole (whole brokers and clients) or raft (Raft groups alone: faster). CUT is
# what a shrunk seed is cut down to (tests/sim/main.c).
SEED ?= 1
N ?= 100
MODE ?= raft
SIM_MODE = $(if $(filter raft,$(MODE)),raft)
.PHONY: sim sim-seeds
sim: MODE := whole
sim: $(B)/sim_main
	@$(B)/sim_main $(SIM_MODE) $(SEED) $(CUT)
sim-seeds: $(B)/sim_main
	@$(B)/sim_main $(SIM_MODE) $(SEED) $(N)
# Seeds of whole brokers in two processes, those that once failed first; totals.
# sim-ci runs as many as CI does and fails when they do not do enough.
.PHONY: sim-whole sim-ci
sim-whole: $(B)/sim_main
	@tests/sim/seeds.py $(B)/sim_main $(SEED) $(N)
sim-ci: $(B)/sim_main
	@tests/sim/seeds.py $(B)/sim_main 1 320 seeds=300 days=3 \
	  acknowledged=1000000 faults=30000
# The same seeds with gcc, clang and gcc's sanitizers: the same event hashes.
HASH_SEEDS ?= 2 3 8
.PHONY: sim-hashes
sim-hashes: $(B)/sim_main
	@./make/deps.sh clang
	@$(MAKE) --no-print-directory CC=$(CLANG) B=$(B)/clang $(B)/clang/sim_main
	@$(MAKE) --no-print-directory B=$(B)/asan OPT="-O1 -g" \
	  SAN="-fsanitize=address,undefined $(UNDEFINED)" $(B)/asan/sim_main
	@ASAN_OPTIONS=detect_leaks=0 tests/sim/hashes.sh "$(HASH_SEEDS)" \
	  $(B)/sim_main $(B)/clang/sim_main $(B)/asan/sim_main
# Defects that the simulator alone must find (tests/fault/planted.txt).
.PHONY: planted
planted:
	@PATH="/usr/lib/ccache:$$PATH" python3 tests/fault/planted.py $(ONLY)
