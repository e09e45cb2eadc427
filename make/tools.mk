# What there is to run and to test besides unit tests: make deps installs what
# the build needs; make run and make test do everything by themselves.
PACKAGES := gcc make libc6-dev libuv1-dev libraft-dev libisal-dev zlib1g-dev \
  libsnappy-dev liblz4-dev libzstd-dev libpopt-dev libsmartcols-dev \
  libjansson-dev librdkafka-dev uthash-dev check libsubunit-dev python3
# more, for conformance by foreign clients and the kill test
PACKAGES_FOREIGN := kcat python3-venv openjdk-17-jdk-headless maven \
  g++ libssl-dev rapidjson-dev $(if $(shell command -v npm),,nodejs npm) \
  $(if $(shell command -v go),,golang-go)

.PHONY: deps deps-foreign run test
deps:
	@./make/deps.sh $(PACKAGES)
deps-foreign: deps
	@./make/deps.sh $(PACKAGES_FOREIGN)

# A local cluster of three brokers: make run ARGS='-n 1 --port 9192'
ARGS ?=
run: deps
	@$(MAKE) --no-print-directory all
	@exec ./$(B)/flotilla dev $(ARGS)

# Everything that belongs to every change; ends with one line of totals.
test: deps
	@$(MAKE) --no-print-directory all
	@./tests/all.sh

# Foreign clients and their own suites against three brokers; SET=short takes
# ten minutes, SET=librdkafka,kafkajs only these; CHAOS=1 kills a broker every
# 60 s under librdkafka's; TESTS=0012,0045 are numbers of librdkafka's tests.
.PHONY: conformance kill-test
SET ?= full
conformance: deps-foreign
	@$(MAKE) --no-print-directory all
	@python3 tests/conformance/run.py --set $(SET) --build $(B) \
	  $(if $(CHAOS),--chaos) $(if $(TESTS),--tests $(TESTS))

# Bad requests of every API: the codes kept from Kafka; PEER=kafka asks a
# running Kafka whether they still are, WRITE=1 keeps what it answers.
.PHONY: bad-requests
bad-requests: deps-foreign
	@$(MAKE) --no-print-directory all
	@python3 tests/conformance/bad_requests.py --build $(B) \
	  $(if $(filter kafka,$(PEER)),--peer kafka) $(if $(WRITE),--write)

# kill -9 under load: ROUNDS rounds, checked record by record.
# PATIENCE is a factor on its limits of time, for a machine that does more.
ROUNDS ?= 20
PATIENCE ?= 1
kill-test: deps-foreign
	@$(MAKE) --no-print-directory all
	@python3 tests/conformance/kill_test.py --rounds $(ROUNDS) \
	  --patience $(PATIENCE) --build $(B)
