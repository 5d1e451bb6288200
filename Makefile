# hob: `make run` shows it working, `make check` tests it, `make help` lists the rest.
FLAVOR  ?= release
B       := build/$(FLAVOR)
CC      ?= cc
MUSL    ?= musl-gcc
PYTHON  ?= /usr/bin/python3
WERROR  ?= 1
V       ?= 0
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
PREFIX  ?= /usr/local
COMPLETIONS ?= $(PREFIX)/share/bash-completion/completions
DESTDIR ?=
SYSCONFDIR ?= /etc
UNITDIR    ?= /lib/systemd/system
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0)
Q       := $(if $(filter 1,$(V)),,@)
say      = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' $(1) $(2))
SUB      = +$(Q)$(MAKE) --no-print-directory -j$(JOBS)

# ---- flags: one build folder for each set (FLAVOR) ----
PACKAGES := libgit2 libarchive libcurl yaml-0.1 sqlite3 jansson libmicrohttpd libcrypto libxxhash
# Asked once, at the first compilation, so that targets which install the packages first work.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(PACKAGES)))$(PKG_CFLAGS)
PKG_LIBS   = $(eval PKG_LIBS := $(shell pkg-config --libs $(PACKAGES)))$(PKG_LIBS)
WARN  := -Wall -Wextra -Wshadow -Wconversion -Wformat=2 -Wvla -Wundef -Wcast-align -Wstrict-prototypes \
	-Wmissing-prototypes -Wimplicit-fallthrough -Wswitch-enum -Wwrite-strings -fno-common
WARN  += $(if $(filter 0,$(WERROR)),,-Werror)
HARDEN := -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection
OPT_release  := -O2 -g $(HARDEN) -D_FORTIFY_SOURCE=3
LINK_release := -pie -Wl,-z,relro,-z,now
SANITIZE     := -fsanitize=address,undefined
OPT_asan     := -O1 -g $(SANITIZE) -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LINK_asan    := $(SANITIZE)
OPT_tsan     := -O1 -g -fsanitize=thread
LINK_tsan    := -fsanitize=thread
OPT_coverage  := -O0 -g --coverage -fprofile-update=atomic
LINK_coverage := --coverage
OPT_fuzz     := $(OPT_asan) -fsanitize=fuzzer-no-link
LINK_fuzz    := $(SANITIZE)
ifeq ($(FLAVOR),fuzz)
CC := clang
endif

ALL_CPPFLAGS = -D_GNU_SOURCE -I. -I$(B) $(PKG_CFLAGS) $(CPPFLAGS)
ALL_CFLAGS   = -std=gnu11 $(OPT_$(FLAVOR)) $(WARN) -ffunction-sections -fdata-sections $(CFLAGS)
ALL_LDFLAGS  = $(LINK_$(FLAVOR)) -Wl,--gc-sections -Wl,--as-needed $(LDFLAGS)
ALL_LDLIBS   = $(PKG_LIBS) -lwslay -lpthread -lm $(LDLIBS)

# ---- rooms: one archive each, folders within included; a program is its main file and the rooms below it ----
mains    := pool/cli/hob.c pool/hobd.c builder/hob-build.c snapshots/cli/hob-snapshots.c \
	pool/simulate/hob-simulate.c pool/simulate/plot.c
room      = $(filter-out $(mains),$(wildcard $(1)/*.c $(1)/*/*.c))
objects   = $(patsubst %.c,$(B)/%.o,$(1))
ROOMS    := base configs snapshots pool/sandbox builder pool tests/lib
SRC_base      := $(call room,base)
SRC_configs   := $(call room,configs)
SRC_snapshots := $(call room,snapshots)
SRC_pool/sandbox := $(filter-out pool/sandbox/seccomp_generate.c pool/sandbox/init/%,$(call room,pool/sandbox))
SRC_builder   := $(call room,builder)
SRC_pool      := $(filter-out pool/sandbox/%,$(call room,pool) $(wildcard pool/*/*/*.c))
SRC_tests/lib := $(filter-out tests/lib/fuzz_replay.c,$(call room,tests/lib))
PROGRAMS := $(addprefix $(B)/,hob hobd hob-build hob-snapshots hob-simulate hob-init)

all: $(PROGRAMS) ## builds the six programs into build/release

define archive
$(B)/lib/$(subst /,-,$(1)).a: $$(call objects,$$(SRC_$(1)))
	$$(call say,AR,$$@)
	@mkdir -p $$(@D) && rm -f $$@
	$(Q)ar rcs $$@ $$^
endef
$(foreach r,$(ROOMS),$(eval $(call archive,$(r))))
lib = $(foreach r,$(1),$(B)/lib/$(subst /,-,$(r)).a)

$(B)/hob:           $(B)/pool/cli/hob.o $(call lib,pool pool/sandbox snapshots configs base)
$(B)/hobd:          $(B)/pool/hobd.o $(call lib,pool pool/sandbox snapshots configs base)
$(B)/hob-build:     $(B)/builder/hob-build.o $(call lib,builder pool/sandbox snapshots configs base)
$(B)/hob-snapshots: $(B)/snapshots/cli/hob-snapshots.o $(call lib,snapshots configs base)
$(B)/hob-simulate:  $(addprefix $(B)/pool/simulate/,hob-simulate.o plot.o) $(call lib,pool pool/sandbox snapshots configs base)
$(B)/hob-simulate:  ALL_LDLIBS += $(shell pkg-config --libs cairo 2>/dev/null || echo -lcairo)
$(B)/hob $(B)/hobd $(B)/hob-build $(B)/hob-snapshots $(B)/hob-simulate:
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LDLIBS)

$(B)/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# hob-init: static, on musl, nothing of ours but its protocol header.
INIT_SRC := $(wildcard pool/sandbox/init/*.c)
$(B)/hob-init: $(INIT_SRC) $(wildcard pool/sandbox/init/*.h) pool/sandbox/init_protocol.h
	$(call say,MUSL,$@)
	@mkdir -p $(@D)
	$(Q)$(MUSL) -std=gnu11 -D_GNU_SOURCE -I. -idirafter /usr/include -idirafter /usr/include/$(shell uname -m)-linux-gnu \
		-Os $(filter-out -Wundef -Wcast-align,$(WARN)) -static -s -o $@ $(INIT_SRC)

# The seccomp program is made at build time: libseccomp takes 15 ms to do it.
$(B)/gen/seccomp_program.h: pool/sandbox/seccomp_generate.c
	$(call say,GEN,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -D_GNU_SOURCE -I. -std=gnu11 $(WARN) -o $(B)/gen/seccomp_generate $< -lseccomp
	$(Q)$(B)/gen/seccomp_generate > $@.tmp && mv $@.tmp $@
$(B)/pool/sandbox/seccomp.o $(B)/tests/bench/bare.o: $(B)/gen/seccomp_program.h

# Written only when it changes, so that a commit does not compile everything again.
$(B)/gen/version.h: always
	@mkdir -p $(@D)
	@echo '#define HOB_VERSION "$(VERSION)"' | cmp -s - $@ || echo '#define HOB_VERSION "$(VERSION)"' > $@
$(shell grep -l gen/version.h builder/*.c builder/*/*.c pool/*.c pool/*/*.c pool/cli/*/*.c | sed 's|^|$(B)/|; s|c$$|o|'): \
	$(B)/gen/version.h
.PHONY: always

# ---- tests and benchmarks: programs that may use every room (TEST_ROOMS narrows it) ----
TEST_ROOMS ?= tests/lib builder pool pool/sandbox snapshots configs base
UNIT  := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/test_*.c))
FUZZ  := $(patsubst %.c,$(B)/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCH := $(patsubst %.c,$(B)/%,$(wildcard tests/bench/*.c))
# The fuzzer brings its own main; elsewhere the corpus is replayed by a small one.
FUZZ_MAIN := $(if $(filter fuzz,$(FLAVOR)),,$(B)/tests/lib/fuzz_replay.o)

$(UNIT) $(BENCH): $(B)/%: $(B)/%.o $(call lib,$(TEST_ROOMS))
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LDLIBS) -lcmocka
$(FUZZ): $(B)/%: $(B)/%.o $(FUZZ_MAIN) $(call lib,$(TEST_ROOMS))
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(if $(FUZZ_MAIN),,-fsanitize=fuzzer) -o $@ $^ $(ALL_LDLIBS)

unit-programs: $(UNIT)
fuzz-programs: $(FUZZ)
bench-programs: $(BENCH)

run: ## shows hob working: builds, makes the demo image, fills the pool, says what to type
	$(Q)contrib/install-deps build
	$(SUB) WERROR=0 all
	$(Q)contrib/run-demo $(B)

check: ## builds and runs every test; the last line says how many passed
	$(Q)contrib/install-deps build test
	$(SUB) all unit-programs
	$(SUB) FLAVOR=asan fuzz-programs
	$(Q)$(PYTHON) tests/run --build $(B) --fuzz-build build/asan lint unit fuzz integration

check-long: ## check, then the sanitizers, then each fuzz target for a minute
	$(SUB) HOB_TEST_LONG=1 HOB_TEST_SNAPSHOTS=100 check
	$(SUB) asan
	$(SUB) tsan
	$(SUB) fuzz

unit: all unit-programs ## only the unit tests (T=name: one of them)
	$(Q)$(PYTHON) tests/run --build $(B) $(if $(T),--only $(T)) unit

integration: all ## only the tests against the real daemon (T=name: one file)
	$(Q)$(PYTHON) tests/run --build $(B) $(if $(T),--only $(T)) integration

asan: ## unit tests, corpora and integration tests under AddressSanitizer and UBSan
	$(Q)contrib/install-deps build test
	$(SUB) FLAVOR=asan all unit-programs fuzz-programs
	$(Q)$(PYTHON) tests/run --build build/asan --fuzz-build build/asan unit fuzz integration

tsan: ## unit tests under ThreadSanitizer
	$(Q)contrib/install-deps build test
	$(SUB) FLAVOR=tsan all unit-programs
	$(Q)$(PYTHON) tests/run --build build/tsan unit

TIME ?= 60
fuzz: ## fuzzes each target for TIME seconds (T=name: one of them), by clang's libFuzzer
	$(Q)contrib/install-deps build test
	$(SUB) FLAVOR=fuzz fuzz-programs
	$(Q)$(PYTHON) tests/run --fuzz-build build/fuzz --fuzz-seconds $(TIME) $(if $(T),--only $(T)) fuzz

# Failures are shown, not fatal: a counter file of root's makes gcov complain where others run too.
coverage: ## which lines the unit and integration tests reach
	$(Q)contrib/install-deps build test coverage
	$(SUB) FLAVOR=coverage all unit-programs
	$(Q)find build/coverage -name '*.gcda' -delete; chmod -R a+rwX build/coverage
	-$(Q)$(PYTHON) tests/run --build build/coverage unit integration
	$(Q)gcovr --root . --exclude tests --exclude-throw-branches --sort-uncovered build/coverage

bench: ## measures hob beside bwrap, runc, unshare and podman; writes build/bench.json
	$(Q)contrib/install-deps build test bench
	$(SUB) all bench-programs
	$(Q)$(PYTHON) tests/bench/run --build $(B) --json build/bench.json

lint: $(B)/gen/seccomp_program.h $(B)/gen/version.h ## style, includes, lengths, formats
	$(Q)$(PYTHON) tests/run lint

lint-deep: $(B)/gen/seccomp_program.h $(B)/gen/version.h ## cppcheck and clang-tidy over everything (minutes)
	$(Q)$(PYTHON) tests/run lint-deep

format: ## clang-format over every C file
	clang-format -i $(shell git ls-files '*.c' '*.h')

install: all ## into PREFIX (/usr/local), configuration into /etc/hob, units for systemd
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(SYSCONFDIR)/hob/environments $(DESTDIR)$(UNITDIR)
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	install -D -m 644 contrib/completions/hob.bash $(DESTDIR)$(COMPLETIONS)/hob
	for file in $(wildcard configs/hob.yaml); do \
		test -e $(DESTDIR)$(SYSCONFDIR)/hob/hob.yaml || \
		install -m 644 $$file $(DESTDIR)$(SYSCONFDIR)/hob/hob.yaml; done
	for unit in $(wildcard contrib/systemd/*); do \
		sed 's|@BINDIR@|$(PREFIX)/bin|' $$unit > $(DESTDIR)$(UNITDIR)/$${unit##*/}; done
	$(if $(DESTDIR),,contrib/install-deps user)

uninstall: ## takes the programs and units away; configuration and store stay
	rm -f $(DESTDIR)$(COMPLETIONS)/hob
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,$(notdir $(PROGRAMS)))
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(notdir $(wildcard contrib/systemd/*)))

deb: all ## a Debian package, build/hob_VERSION_ARCH.deb
	$(Q)contrib/make-deb $(VERSION)

clean: ## removes build/
	rm -rf build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  %-12s %s\n' "$$name" "$$text"; done

-include $(shell find $(B) -name '*.d' 2>/dev/null)

.DELETE_ON_ERROR:
.PHONY: run all check check-long unit integration asan tsan fuzz coverage bench lint lint-deep format install \
	uninstall deb clean help unit-programs fuzz-programs bench-programs
