# `make memory-test [MEMORY_TIME=seconds of each load]`: resident memory of real
# brokers under loads that ask for much, against the bound they tell.
MEMORY_TIME ?= 60
.PHONY: memory-test
memory-test: deps
	@$(MAKE) --no-print-directory all
	@python3 tests/fault/memory.py --build $(B) --time $(MEMORY_TIME)
# `make mutants [ONLY=part of a name,...] [MATRIX=1 [KINDS=unit,crash,sim,chaos]
# [MUTANT_ARGS=...]]`: builds with one defect each, and what kills them first, or
# with MATRIX which kinds of checks do, within a budget each; fails below 90 %.
# Uses ccache where it is installed.
ONLY ?=
.PHONY: mutants
mutants: deps
	@PATH="/usr/lib/ccache:$$PATH" python3 tests/fault/mutants.py $(if $(ONLY),--only $(ONLY)) \
	  $(if $(MATRIX),--matrix --write build-mutants/matrix.md) \
	  $(if $(KINDS),--kinds $(KINDS)) $(MUTANT_ARGS)

# `make damage-test [ROUNDS=3] [SEED=1]`: two bytes flipped in every file of one
# of three real brokers, which must repair itself.
.PHONY: damage-test
damage-test: ROUNDS = 3
damage-test: deps-foreign
	@$(MAKE) --no-print-directory all
	@python3 tests/fault/damage.py --rounds $(ROUNDS) --seed $(SEED) \
	  --build $(B)

# `make stop-test [STOPS=6] [SHARDS=3]`: brokers stopped by SIGTERM under load,
# while topics come and go. B=build/tsan: what `make tsan` built (the plain
# program asks the brokers then).
.PHONY: stop-test
stop-test: STOPS = 6
stop-test: SHARDS = 3
stop-test: deps
	@test -x $(B)/flotilla || $(MAKE) --no-print-directory all
	@python3 tests/fault/stop.py --rounds $(STOPS) --shards $(SHARDS) \
	  --build $(B) $(if $(wildcard build/flotilla),--tool build/flotilla) \
	  $(if $(filter build,$(B)),,--soon 30)
