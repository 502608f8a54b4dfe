# SPDX-License-Identifier: Apache-2.0
# GNU make 4.3 or later. `make help` lists targets and settings.

# --- what a user sets ----------------------------------------------------------------------------
ifeq ($(origin CC),default)
CC := gcc
endif
CFLAGS ?= -O2 -g
CPPFLAGS ?=
LDFLAGS ?=
OBJCOPY ?= objcopy
NM ?= nm
INSTALL ?= install

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
DESTDIR ?=

V ?= 0
WERROR ?= 0
HARDEN ?= 1
SERVER ?= 1
SANITIZE ?=
BUILD ?= build
TESTS ?=
FOLDERS ?=
FUZZ_CC ?= clang
FUZZ_SECONDS ?= 30
FUZZERS ?=
NIGHTLY_SCHEDULES ?= 100000
NIGHTLY_FUZZ_SECONDS ?= 600
BENCH_ARGS ?=

MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

# --- flavours ------------------------------------------------------------------------------------
# Objects and programs of a flavour live in $(OUT). The last flavour without sanitizers that was
# made is copied to $(BUILD)/bin and $(BUILD)/lib.
empty :=
space := $(empty) $(empty)
comma := ,
compiler := $(subst $(space),_,$(strip $(notdir $(CC))))
FLAVOUR := $(compiler)$(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))$(if $(filter 0,$(SERVER)),-client)
OUT := $(BUILD)/$(FLAVOUR)
OBJ := $(OUT)/obj
PUBLIC := $(if $(SANITIZE),$(OUT),$(BUILD))

Q := $(if $(filter 1,$(V)),,@)
say = $(if $(Q),@printf '  %-8s %s\n' '$(1)' '$(2)')

version_of = $(shell sed -n 's/^\#define TUNNEL_VERSION$(1) *"\{0,1\}\([0-9.]*\)"\{0,1\}$$/\1/p' include/tunnel/version.h)
VERSION := $(call version_of,)
SONAME := libtunnel.so.$(call version_of,_MAJOR)

# --- dependencies --------------------------------------------------------------------------------
# config.mk sets DEP_CFLAGS, PRIVATE_LIBS, SYSTEM_LIBS, SYSTEM_REQUIRES, CMOCKA_*, CONFIG_FILES, and
# for the programs APP_CFLAGS and APP_LIBS. Making it installs and builds what is missing
# (scripts/setup build).
NO_CONFIG := clean help format uninstall lint-style lint-layers lint-shell setup-test
CONFIG := $(BUILD)/config.mk
ifneq ($(filter-out $(NO_CONFIG),$(or $(MAKECMDGOALS),all)),)
include $(CONFIG)
endif

$(CONFIG): scripts/config scripts/setup $(CONFIG_FILES)
	$(call say,CONFIG,$@)
	@mkdir -p $(@D)
	$(Q)scripts/config >$@.tmp && mv -f $@.tmp $@

# Should one of these have gone, the configuration is made anew.
$(CONFIG_FILES): ;

# --- flags ---------------------------------------------------------------------------------------
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes
# Texts for people are cut to their buffers on purpose. (gcc alone knows this one.)
ifeq ($(findstring clang,$(CC)),)
WARNINGS += -Wno-format-truncation
endif
ifeq ($(WERROR),1)
WARNINGS += -Werror
endif

BASE_CFLAGS := -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden
LINK_FLAGS :=
ifneq ($(SANITIZE),)
BASE_CFLAGS += -fsanitize=$(patsubst fuzzer%,fuzzer-no-link%,$(SANITIZE)) \
    -fno-sanitize-recover=all -fno-omit-frame-pointer
LINK_FLAGS += -fsanitize=$(SANITIZE)
NOT_FUZZER := $(subst $(space),$(comma),$(filter-out fuzzer,$(subst $(comma),$(space),$(SANITIZE))))
else ifeq ($(HARDEN),1)
BASE_CFLAGS += -fstack-protector-strong
ifeq ($(filter -O0,$(CFLAGS)),)
BASE_CFLAGS += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
endif
LINK_FLAGS += -Wl,-z,relro,-z,now
endif

COMPILE = $(CC) $(BASE_CFLAGS) $(WARNINGS) $(CPPFLAGS) $(CFLAGS) -MMD -MP
LINK = $(CC) $(CFLAGS) $(LINK_FLAGS) $(LDFLAGS)

# --- what there is -------------------------------------------------------------------------------
LIB_SRC := $(sort $(wildcard lib/*/*.c))
HEADERS := $(sort $(wildcard include/tunnel/*.h))
APPS := client server
ifeq ($(SERVER),0)
LIB_SRC := $(filter-out lib/server/% lib/api/server%,$(LIB_SRC))
HEADERS := $(filter-out include/tunnel/server%,$(HEADERS))
APPS := client
endif
APPS := $(foreach a,$(APPS),$(if $(wildcard apps/$(a)/*.c),$(a)))
EXAMPLE_SRC := $(sort $(wildcard examples/*.c))
APP_SRC := $(sort $(wildcard $(APPS:%=apps/%/*.c) apps/common/*.c))

TEST_LIB_SRC := $(if $(FOLDERS),$(filter $(FOLDERS:%=lib/%/%),$(LIB_SRC)),$(LIB_SRC))
SUPPORT_SRC := $(sort $(wildcard test/support/*.c))
UNIT_SRC := $(sort $(wildcard test/unit/*_test.c test/unit/*/*_test.c))
ifeq ($(SERVER),0)
UNIT_SRC := $(filter-out test/unit/server% \
    $(shell grep -lE '(server/|support/edge\.h|tunnel/server\.h)' $(UNIT_SRC)),$(UNIT_SRC))
endif
SIM_SRC := $(sort $(wildcard test/sim/*_test.c))
FUZZ_SRC := $(sort $(wildcard fuzz/*.c))
ifeq ($(SERVER),0)
FUZZ_SRC := $(filter-out fuzz/config_server.c,$(FUZZ_SRC))
endif
MAN := $(sort $(wildcard man/*.[1-8]))
ifeq ($(SERVER),0)
MAN := $(filter-out man/tunnel-server%,$(MAN))
endif

obj = $(patsubst %.c,$(OBJ)/%.o,$(1))
ALL_SRC := $(LIB_SRC) $(APP_SRC) $(EXAMPLE_SRC) $(UNIT_SRC) $(SIM_SRC) $(SUPPORT_SRC) $(FUZZ_SRC) test/fuzz_replay.c

SHARED := libtunnel.so.$(VERSION)
STATIC := $(OUT)/lib/libtunnel.a
PROGRAMS := $(APPS:%=$(OUT)/bin/tunnel-%)
EXAMPLES := $(EXAMPLE_SRC:%.c=$(OUT)/%)

.SECONDARY: $(call obj,$(ALL_SRC)) $(PROGRAMS)

.PHONY: all
all: $(PROGRAMS:$(OUT)/%=$(PUBLIC)/%) $(EXAMPLES:$(OUT)/%=$(PUBLIC)/%) \
    $(PUBLIC)/lib/libtunnel.a $(PUBLIC)/lib/libtunnel.so

# --- compiling -----------------------------------------------------------------------------------
# Whatever changes a flag makes the objects anew.
$(OUT)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' >$@
FLAGS = $(COMPILE) $(DEP_CFLAGS) $(LINK)

$(OBJ)/lib/%.o: INCLUDES := -Iinclude -Ilib $(DEP_CFLAGS)
$(OBJ)/apps/%.o: INCLUDES := -Iinclude -Iapps $(APP_CFLAGS)
$(OBJ)/examples/%.o: INCLUDES := -Iinclude
$(OBJ)/test/%.o: INCLUDES := -Iinclude -Ilib -Itest $(DEP_CFLAGS) $(CMOCKA_CFLAGS)
$(OBJ)/fuzz/%.o: INCLUDES := -Iinclude -Ilib -Iapps -Ifuzz $(DEP_CFLAGS)

$(OBJ)/%.o: %.c $(OUT)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) $(INCLUDES) -c -o $@ $<

-include $(patsubst %.c,$(OBJ)/%.d,$(ALL_SRC))

# --- the library ---------------------------------------------------------------------------------
# One object with what is needed of the private libraries; only tunnel_* stays visible.
$(OUT)/lib/libtunnel.o: $(call obj,$(LIB_SRC)) $(PRIVATE_LIBS) $(OUT)/sources
	$(call say,LD -r,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -r -nostdlib -o $@.tmp $(call obj,$(LIB_SRC)) -Wl,--start-group $(PRIVATE_LIBS) \
	    -Wl,--end-group
	$(Q)$(OBJCOPY) --wildcard --keep-global-symbol='tunnel_*' $@.tmp $@
	@rm -f $@.tmp

$(STATIC): $(OUT)/lib/libtunnel.o
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) qcs $@ $<

$(OUT)/lib/$(SHARED): $(call obj,$(LIB_SRC)) $(PRIVATE_LIBS) lib/libtunnel.map $(OUT)/sources
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=lib/libtunnel.map \
	    $(if $(SANITIZE),,-Wl,-z,defs) -o $@ $(call obj,$(LIB_SRC)) \
	    -Wl,--start-group $(PRIVATE_LIBS) -Wl,--end-group $(SYSTEM_LIBS)

# A source that has gone must leave the libraries too.
$(OUT)/sources: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_SRC) $(APP_SRC) $(SUPPORT_SRC)' | cmp -s - $@ || \
	    echo '$(LIB_SRC) $(APP_SRC) $(SUPPORT_SRC)' >$@

# --- the programs --------------------------------------------------------------------------------
.SECONDEXPANSION:
$(OUT)/bin/tunnel-%: $$(call obj,$$(wildcard apps/$$*/*.c apps/common/*.c)) $(STATIC)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -pie -o $@ $^ $(SYSTEM_LIBS) -Wl,--as-needed $(APP_LIBS)

# What a user builds with the library: the public headers and nothing else.
$(EXAMPLES): $(OUT)/examples/%: $(OBJ)/examples/%.o $(STATIC)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -pie -o $@ $^ $(SYSTEM_LIBS)

# --- build/bin and build/lib ---------------------------------------------------------------------
ifneq ($(PUBLIC),$(OUT))
# Another flavour than the last one: nothing of that stays.
$(BUILD)/flavour: FORCE
	@mkdir -p $(@D)
	@echo '$(FLAVOUR)' | cmp -s - $@ || { rm -rf $(BUILD)/bin $(BUILD)/lib $(BUILD)/examples; echo '$(FLAVOUR)' >$@; }

define publish
	@mkdir -p $(@D)
	@cp $< $@.tmp && mv -f $@.tmp $@
endef
$(BUILD)/bin/%: $(OUT)/bin/% $(BUILD)/flavour
	$(publish)
$(BUILD)/lib/%: $(OUT)/lib/% $(BUILD)/flavour
	$(publish)
$(BUILD)/examples/%: $(OUT)/examples/% $(BUILD)/flavour
	$(publish)
endif

$(PUBLIC)/lib/libtunnel.so: $(PUBLIC)/lib/$(SHARED)
	@ln -sf $(SHARED) $(@D)/$(SONAME)
	@ln -sf $(SHARED) $@

# --- test programs -------------------------------------------------------------------------------
# FOLDERS="base io" links the tests with these folders of lib/ alone.
tag := $(if $(FOLDERS),-$(subst $(space),-,$(strip $(FOLDERS))))
TEST_LIB := $(OUT)/libtunnel-test$(tag).a
SUPPORT_LIB := $(OUT)/libtest-support.a
TEST_OUT := $(OUT)/test$(tag)
UNIT := $(UNIT_SRC:test/unit/%.c=$(TEST_OUT)/unit/%)
SIM := $(SIM_SRC:test/sim/%.c=$(TEST_OUT)/sim/%)
REPLAY := $(FUZZ_SRC:fuzz/%.c=$(TEST_OUT)/fuzz/%)
TEST_LIBS = -Wl,--start-group $(PRIVATE_LIBS) -Wl,--end-group $(SYSTEM_LIBS)
# A replay has a main of its own.
TEST_LINK = $(CC) $(CFLAGS) $(filter-out -fsanitize=%,$(LINK_FLAGS)) \
    $(if $(NOT_FUZZER),-fsanitize=$(NOT_FUZZER)) $(LDFLAGS)

$(TEST_LIB): $(call obj,$(TEST_LIB_SRC)) $(OUT)/sources
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) qcs $@ $(call obj,$(TEST_LIB_SRC))

$(SUPPORT_LIB): $(call obj,$(SUPPORT_SRC)) $(OUT)/sources
	@rm -f $@
	$(Q)$(AR) qcs $@ $(call obj,$(SUPPORT_SRC))

$(UNIT) $(SIM): $(TEST_OUT)/%: $(OBJ)/test/%.o $(SUPPORT_LIB) $(TEST_LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(TEST_LINK) -pie -o $@ $^ $(TEST_LIBS) $(CMOCKA_LIBS)

$(REPLAY): $(TEST_OUT)/fuzz/%: $(OBJ)/fuzz/%.o $(OBJ)/test/fuzz_replay.o $(TEST_LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(TEST_LINK) -pie -o $@ $(FUZZ_LINK)

# Fuzzers of a program's own parts, config_PROGRAM, link with these.
APP_LIBRARIES := $(APPS:%=$(OUT)/libapp-%.a)
$(APP_LIBRARIES): $(OUT)/libapp-%.a: $$(call obj,$$(wildcard apps/$$*/*.c apps/common/*.c)) $(OUT)/sources
	@rm -f $@
	$(Q)$(AR) qcs $@ $(filter-out %/main.o %/sources,$^)

$(foreach a,$(APPS),$(eval $(TEST_OUT)/fuzz/config_$(a) $(OUT)/fuzz/config_$(a): $(OUT)/libapp-$(a).a))
FUZZ_LINK = $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) $(PRIVATE_LIBS) -Wl,--end-group \
    $(SYSTEM_LIBS) -Wl,--as-needed $(APP_LIBS)

# What test/run is to run: a line for each, kind and path.
$(TEST_OUT)/programs: $(UNIT) $(SIM) $(REPLAY) FORCE
	@mkdir -p $(@D)
	@printf '%s\n' $(UNIT:%='unit %') $(SIM:%='sim %') $(REPLAY:%='fuzz %') '' >$@

.PHONY: setup-test test-programs test unit sanitize
setup-test:
	@scripts/setup test

test-programs: $(TEST_OUT)/programs

test: all test-programs | setup-test
	@$(if $(filter 0,$(SERVER)),SERVER_LEFT_OUT=1) test/run --out $(OUT) --bin $(PUBLIC)/bin $(TESTS)

# make unit T=buf_test [FOLDERS="base"]: one test program and its output as it comes.
ifneq ($(T),)
unit: $(filter %/$(T),$(UNIT) $(SIM) $(REPLAY))
	$(if $<,,$(error no test program is called $(T)))
	@$< $(if $(filter $<,$(REPLAY)),fuzz/corpus/$(T))
else
unit: test-programs
	@$(if $(filter 0,$(SERVER)),SERVER_LEFT_OUT=1) test/run --out $(OUT) unit sim fuzz
endif

sanitize:
	+@$(MAKE) SANITIZE=address,undefined TESTS='$(or $(TESTS),unit sim fuzz e2e)' test

# --- fuzzing -------------------------------------------------------------------------------------
FUZZ := $(FUZZ_SRC:fuzz/%.c=$(OUT)/fuzz/%)

$(FUZZ): $(OUT)/fuzz/%: $(OBJ)/fuzz/%.o $(TEST_LIB)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $(FUZZ_LINK)

.PHONY: fuzz fuzz-programs
fuzz-programs: $(FUZZ)

fuzz: | setup-test
	+@$(MAKE) CC=$(FUZZ_CC) SANITIZE=fuzzer,address,undefined fuzz-programs
	@scripts/fuzz $(BUILD) $(BUILD)/$(FUZZ_CC)-fuzzer-address-undefined/fuzz $(FUZZ_SECONDS) \
	    $(or $(FUZZERS),$(FUZZ_SRC:fuzz/%.c=%))

# --- for longer ----------------------------------------------------------------------------------
# What make test does a little of. mux_sim_test runs a quarter of SIM_COUNT with a lying peer.
.PHONY: nightly nightly-sim
nightly-sim: $(SIM)
	SIM_MODE=honest SIM_COUNT=$(NIGHTLY_SCHEDULES) $(TEST_OUT)/sim/mux_sim_test
	SIM_MODE=hostile SIM_COUNT=$$((4 * $(NIGHTLY_SCHEDULES))) $(TEST_OUT)/sim/mux_sim_test
	SIM_STRIDE=1 $(TEST_OUT)/sim/mux_loss_test

nightly: | setup-test
	+@$(MAKE) SANITIZE=address,undefined nightly-sim
	+@$(MAKE) fuzz FUZZ_SECONDS=$(NIGHTLY_FUZZ_SECONDS)

# --- benchmark, demo -----------------------------------------------------------------------------
.PHONY: bench demo
bench: all | setup-test
	@bench/run --build $(BUILD) $(BENCH_ARGS)

demo: all
	@scripts/demo $(BUILD)/bin

# --- lint ----------------------------------------------------------------------------------------
LINT_SRC := $(sort $(wildcard lib/*/*.c apps/*/*.c))
LINT_HEADERS := $(sort $(wildcard include/tunnel/*.h lib/*/*.h apps/*/*.h))
LINT := $(BUILD)/lint
LINT_FLAGS = -std=c11 -D_GNU_SOURCE -Iinclude -Ilib -Iapps $(DEP_CFLAGS) $(APP_CFLAGS)
SHELL_SCRIPTS = $(shell grep -lEs '^\#!.*/(env )?(ba)?sh$$' scripts/* .ci/* test/* bench/* fuzz/* examples/*)

.PHONY: lint lint-layers lint-style lint-shell lint-tidy lint-cppcheck lint-analyzer
lint: lint-layers lint-style lint-shell lint-tidy lint-cppcheck lint-analyzer

lint-layers:
	$(call say,LAYERS,lib apps)
	$(Q)scripts/check-layers

lint-style:
	$(call say,STYLE,.)
	$(Q)scripts/check-style

lint-shell: | setup-test
	$(call say,SHELL,$(SHELL_SCRIPTS))
	$(Q)shellcheck $(SHELL_SCRIPTS)

lint-tidy: $(LINT_SRC:%=$(LINT)/tidy/%)
$(LINT)/tidy/%: % $(LINT_HEADERS) .clang-tidy $(CONFIG) | setup-test
	$(call say,TIDY,$<)
	@mkdir -p $(@D)
	$(Q)clang-tidy --quiet $< -- $(LINT_FLAGS) 2>$@.log || { cat $@.log; exit 1; }
	@touch $@

lint-analyzer: $(LINT_SRC:%=$(LINT)/analyzer/%)
$(LINT)/analyzer/%: % $(LINT_HEADERS) $(CONFIG) | setup-test
	$(call say,ANALYZE,$<)
	@mkdir -p $(@D)
	$(Q)gcc -fanalyzer -Werror $(LINT_FLAGS) -O1 -c -o $@ $<

lint-cppcheck: $(CONFIG) | setup-test
	$(call say,CPPCHECK,lib apps)
	@mkdir -p $(LINT)/cppcheck
	$(Q)cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
	    --suppressions-list=.cppcheck --error-exitcode=1 --cppcheck-build-dir=$(LINT)/cppcheck \
	    -D_GNU_SOURCE -D__GNUC__ -Iinclude -Ilib -Iapps $(LINT_SRC)

.PHONY: format
format:
	clang-format -i $(wildcard include/tunnel/*.h lib/*/*.[ch] apps/*/*.[ch] fuzz/*.[ch] \
	    test/*.[ch] test/*/*.[ch] bench/c/*.[ch] examples/*.[ch] examples/*/*.[ch])

# --- installing ----------------------------------------------------------------------------------
to = $(DESTDIR)$(1)
in_prefix = $(patsubst $(PREFIX)/%,$${prefix}/%,$(1))

.PHONY: install uninstall
# From the flavour's own folder, so that build/bin and build/lib stay as they are.
install: $(PROGRAMS) $(STATIC) $(OUT)/lib/$(SHARED)
	$(Q)$(INSTALL) -d $(call to,$(BINDIR)) $(call to,$(LIBDIR)/pkgconfig) \
	    $(call to,$(INCLUDEDIR)/tunnel)
	$(Q)$(INSTALL) -m 644 $(HEADERS) $(call to,$(INCLUDEDIR)/tunnel)
ifeq ($(SERVER),0)
	$(Q)sed -i '/<tunnel\/server/d' $(call to,$(INCLUDEDIR)/tunnel/tunnel.h)
endif
	$(Q)$(INSTALL) -m 644 $(OUT)/lib/libtunnel.a $(call to,$(LIBDIR))
	$(Q)$(INSTALL) -m 755 $(OUT)/lib/$(SHARED) $(call to,$(LIBDIR))
	$(Q)ln -sf $(SHARED) $(call to,$(LIBDIR)/$(SONAME))
	$(Q)ln -sf $(SONAME) $(call to,$(LIBDIR)/libtunnel.so)
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(call in_prefix,$(LIBDIR))|' \
	    -e 's|@INCLUDEDIR@|$(call in_prefix,$(INCLUDEDIR))|' -e 's|@VERSION@|$(VERSION)|' \
	    -e 's|@REQUIRES@|$(SYSTEM_REQUIRES)|' pkgconfig/libtunnel.pc.in \
	    >$(call to,$(LIBDIR)/pkgconfig/libtunnel.pc)
	$(Q)chmod 644 $(call to,$(LIBDIR)/pkgconfig/libtunnel.pc)
	$(Q)for program in $(APPS:%=tunnel-%); do \
	    $(INSTALL) -m 755 $(OUT)/bin/$$program $(call to,$(BINDIR)) || exit; done
	$(Q)for page in $(MAN); do section=$(call to,$(MANDIR))/man$${page##*.}; \
	    $(INSTALL) -d $$section && $(INSTALL) -m 644 $$page $$section || exit; done

uninstall:
	$(Q)rm -f $(HEADERS:include/%=$(call to,$(INCLUDEDIR))/%) \
	    $(call to,$(LIBDIR)/libtunnel.a) $(call to,$(LIBDIR)/libtunnel.so)* \
	    $(call to,$(LIBDIR)/pkgconfig/libtunnel.pc) $(APPS:%=$(call to,$(BINDIR))/tunnel-%)
	$(Q)for page in $(MAN); do \
	    rm -f $(call to,$(MANDIR))/man$${page##*.}/$${page##*/}; done
	$(Q)rmdir $(call to,$(INCLUDEDIR)/tunnel) 2>/dev/null || :

# --- the rest ------------------------------------------------------------------------------------
.PHONY: clean help FORCE
clean:
	rm -rf -- $(BUILD)

FORCE:

help:
	@sed -n 's/^    //p' scripts/make-help.txt
