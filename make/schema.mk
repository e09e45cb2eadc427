# `make schema-check` compares net/schema, and the bytes that the codec writes,
# with Kafka's released artifacts (their definitions and their classes). Needs
# Maven and a JDK. KAFKA_VERSION: RELEASE is the newest.
KAFKA_VERSION ?= RELEASE
KAFKA_JARS := $(B)/kafka-jars
KAFKA_ARTIFACTS := kafka-clients kafka-group-coordinator \
  kafka-share-coordinator kafka-transaction-coordinator
MVN_COPY := mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy

$(KAFKA_JARS)/.fetched-$(KAFKA_VERSION):
	@rm -rf $(KAFKA_JARS) && mkdir -p $(KAFKA_JARS)
	@for a in $(KAFKA_ARTIFACTS); do \
	  $(MVN_COPY) -Dartifact=org.apache.kafka:$$a:$(KAFKA_VERSION) \
	    -DoutputDirectory=$(KAFKA_JARS) || exit 1; done
	@touch $@

$(B)/codec_samples: $(B)/tests/conformance/codec_samples.o \
    $(B)/tests/unit/codec_random.o $(B)/libflotilla.a
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(LIBS)

.PHONY: schema-check
schema-check: $(KAFKA_JARS)/.fetched-$(KAFKA_VERSION) $(B)/codec_samples
	@ls $(KAFKA_JARS)/*.jar
	@$(B)/codec_samples > $(B)/codec_samples.txt
	@fields=$$(python3 tests/conformance/schema_compare.py $(KAFKA_JARS)); a=$$?; \
	bytes=$$(java -cp "$(KAFKA_JARS)/*" tests/conformance/SchemaBytes.java \
	  $(KAFKA_JARS)/*.jar < $(B)/codec_samples.txt 2>&1); b=$$?; \
	printf 'fields: %s\nbytes: %s\n' "$$fields" "$$bytes"; \
	printf '%s\n%s\n' "$$fields" "$$bytes" | \
	  awk '/^[0-9]+ passed, [0-9]+ failed$$/ { p += $$1; f += $$3 } \
	       END { print p + 0 " passed, " f + 0 " failed" }'; \
	[ $$a = 0 ] && [ $$b = 0 ]
