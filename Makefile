# hob: `make run` shows it working, `make check` tests it, `make help` lists the rest.
FLAVOR ?= release
B      := build/$(FLAVOR)
CC     ?= cc
MUSL   ?= musl-gcc
V      ?= 0
Q      := $(if $(filter 1,$(V)),,@)
say     = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' $(1) $(2))
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0)

PACKAGES := libgit2 libarchive libcurl yaml-0.1 sqlite3 jansson libmicrohttpd libcrypto libxxhash
WARN  := -Wall -Wextra -Wshadow -Wconversion -Wformat=2 -Wvla -Wundef -Wcast-align -Wstrict-prototypes \
	-Wmissing-prototypes -Wimplicit-fallthrough -Wswitch-enum -Wwrite-strings -fno-common
WARN  += $(if $(or $(CI),$(WERROR)),-Werror)
HARDEN := -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection
OPT_release  := -O2 -g $(HARDEN) -D_FORTIFY_SOURCE=3
LINK_release := -pie -Wl,-z,relro,-z,now
OPT_asan  := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LINK_asan := -fsanitize=address,undefined
OPT_tsan  := -O1 -g -fsanitize=thread
LINK_tsan := -fsanitize=thread
OPT_coverage  := -O0 -g --coverage
LINK_coverage := --coverage
OPT_fuzz  := -O1 -g -fsanitize=address,undefined,fuzzer-no-link -fno-omit-frame-pointer
LINK_fuzz := -fsanitize=address,undefined

CPPFLAGS += -D_GNU_SOURCE -I. -I$(B) -DHOB_VERSION='"$(VERSION)"' $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
CFLAGS   += -std=gnu11 $(OPT_$(FLAVOR)) $(WARN) -ffunction-sections -fdata-sections
LDFLAGS  += $(LINK_$(FLAVOR)) -Wl,--gc-sections -Wl,--as-needed
LDLIBS   += $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) -lwslay -lpthread

# One archive a room; a program is its main file and the rooms below it. Files named hob*.c are mains.
mains    := pool/cli/hob.c pool/hobd.c builder/hob-build.c snapshots/hob-snapshots.c
room      = $(filter-out $(mains),$(wildcard $(addsuffix /*.c,$(1))))
objects   = $(patsubst %.c,$(B)/%.o,$(1))
ROOMS    := base configs snapshots pool/sandbox builder pool
SRC_base      := $(call room,base)
SRC_configs   := $(call room,configs)
SRC_snapshots := $(call room,snapshots)
SRC_pool/sandbox := $(filter-out pool/sandbox/seccomp_generate.c,$(call room,pool/sandbox))
SRC_builder   := $(call room,builder)
SRC_pool      := $(call room,pool pool/api pool/cli)
PROGRAMS := $(addprefix $(B)/,hob hobd hob-build hob-snapshots hob-init)

all: $(PROGRAMS)

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
$(B)/hob-snapshots: $(B)/snapshots/hob-snapshots.o $(call lib,snapshots configs base)
$(B)/hob $(B)/hobd $(B)/hob-build $(B)/hob-snapshots:
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/%.o: %.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

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
$(B)/pool/sandbox/seccomp.o: $(B)/gen/seccomp_program.h

-include $(shell find $(B) -name '*.d' 2>/dev/null)

clean:
	rm -rf build

.PHONY: all clean
