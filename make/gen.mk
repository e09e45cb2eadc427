# The wire's structs and tables, generated from net/schema into $(B)/gen/schema.
SCHEMA := $(wildcard net/schema/*.schema)
GEN_DIR := $(B)/gen/schema
GEN_NAMES := $(SCHEMA:net/schema/%.schema=%) apis
GEN_H := $(GEN_NAMES:%=$(GEN_DIR)/%.h)
GEN_C := $(GEN_NAMES:%=$(GEN_DIR)/%.c)
GEN_OBJ := $(GEN_C:%.c=%.o)
# What must be there before anything is compiled. The generator leaves files
# alone that stay the same, so the stamp carries the time.
GEN_HEADERS := $(GEN_DIR)/.stamp

$(GEN_DIR)/.stamp: net/schema/generate.py $(SCHEMA)
	@mkdir -p $(@D)
	@echo python3 net/schema/generate.py
	@python3 net/schema/generate.py $(GEN_DIR) $(SCHEMA)
	@touch $@
$(GEN_H) $(GEN_C): $(GEN_DIR)/.stamp
	@:
$(GEN_OBJ): $(GEN_DIR)/%.o: $(GEN_DIR)/%.c
	@echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
