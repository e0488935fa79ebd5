# sardonyx: `make` builds build/sardonyx; `make help` lists the rest.
#
#   MODE      release | debug | asan | tsan | cov       objects in build/MODE
#   CC        gcc or clang
#   PARALLEL  openmp | pthread (the thread seam; tsan always takes pthread)
#   OPENBLAS  1 | 0
#   SNDFILE   1 | 0         sounds by libsndfile; 0: WAV alone
#   CURL      1 | 0         sardonyx-fetch, which downloads from the Hugging Face hub

MODE     ?= release
PARALLEL ?= $(if $(filter tsan,$(MODE)),pthread,openmp)
OPENBLAS ?= 1
SNDFILE  ?= 1
CURL     ?= 1
PREFIX   ?= /usr/local
PYTHON   ?= python3
ifeq ($(origin CC),default)
CC       := gcc
endif

# A folder for each choice that changes objects, so that none are mixed.
BUILD   := build/$(MODE)$(if $(filter clang%,$(CC)),-clang)$(if $(filter aarch64%,$(CC)),-aarch64)$(if \
           $(filter pthread,$(if $(filter tsan,$(MODE)),,$(PARALLEL))),-pthread)$(if $(filter 0,$(OPENBLAS)),-noblas)$(if \
           $(filter 0,$(SNDFILE)),-nosndfile)
VERSION := $(shell sed -n 's/^\#define SDX_VERSION "\(.*\)"/\1/p' include/sardonyx.h)

# Short lines; V=1 shows the commands.
Q    := $(if $(V),,@)
say   = $(if $(V),,@printf '  %-5s %s\n' $(1) $@)

# ---- flags ---------------------------------------------------------------------------------------------------

WARN := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wvla -Wno-format-truncation
MODE_release := -O2 -g1 -DNDEBUG
MODE_debug   := -O0 -g
MODE_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -DSDX_ALLOC_FAILURE
MODE_tsan    := -O1 -g -fsanitize=thread
MODE_cov     := -O0 -g --coverage
ifeq ($(MODE_$(MODE)),)
$(error MODE is one of release debug asan tsan cov)
endif

THREAD_openmp  := -fopenmp
THREAD_pthread := -pthread -DSDX_PTHREAD
THREAD := $(THREAD_$(PARALLEL))

BLAS   := $(filter-out 0,$(OPENBLAS))
SOUND  := $(if $(filter 0,$(SNDFILE)),,-lsndfile)
DEFS   := -D_XOPEN_SOURCE=700 $(if $(BLAS),-DSDX_WITH_OPENBLAS) $(if $(SOUND),-DSDX_WITH_SNDFILE) \
          -DSDX_BUILD_FLAGS='"$(CC) MODE=$(MODE) PARALLEL=$(PARALLEL) OPENBLAS=$(OPENBLAS)"'
# A compiler that fuses a*b+c where it likes would give other bits per instruction set.
CFLAGS += -std=c17 -ffp-contract=off $(WARN) $(MODE_$(MODE)) -fPIC -fvisibility=hidden -MMD -MP $(THREAD) $(DEFS) -I$(BUILD)/gen
# Traps and errno only hold vectors back. Never -ffast-math: masks are -inf.
KERNEL := -O3 -fno-math-errno -fno-trapping-math
LDLIBS := -lprotobuf-c -ljansson -lutf8proc -lpcre2-8 -lz $(SOUND) -lm
LDFLAGS += $(THREAD) $(filter -fsanitize=% --coverage,$(MODE_$(MODE)))

# ---- instruction sets: flags, and the kernel families that the tier improves ----------------------------------

MACHINE := $(shell $(CC) -dumpmachine)
ifneq ($(filter x86_64%,$(MACHINE)),)
ISAS := scalar avx2 avxvnni avx512 avx512vnni avx512fp16
endif
ifneq ($(filter aarch64%,$(MACHINE)),)
ISAS := scalar neon neon_dot neon_i8mm
endif
ISAS ?= scalar
FAMILIES := $(filter-out cpu dispatch peak blas gemm_bf16 gemm_f16,$(notdir $(basename $(wildcard kernels/*.c))))
FLAGS_scalar     :=
FLAGS_avx2       := -mavx2 -mfma -mf16c
FLAGS_avxvnni    := $(FLAGS_avx2) -mavxvnni
FLAGS_avx512     := $(FLAGS_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd
FLAGS_avx512vnni := $(FLAGS_avx512) -mavx512vnni
FLAGS_avx512fp16 := $(FLAGS_avx512) -mavx512fp16
FLAGS_neon       :=
FLAGS_neon_dot   := -march=armv8.2-a+dotprod
FLAGS_neon_i8mm  := -march=armv8.2-a+i8mm
FLAGS_gemm_bf16  := -mavx512bf16 # of one family; its own bit of CPUID decides in the run whether it is used
FAMILIES_scalar     := $(FAMILIES) gemm_f16
FAMILIES_avx2       := $(FAMILIES)
FAMILIES_avxvnni    := gemm_int8
FAMILIES_avx512     := $(FAMILIES) gemm_f16
FAMILIES_avx512vnni := gemm_int8 gemm_bf16
FAMILIES_avx512fp16 := gemm_f16
FAMILIES_neon       := $(FAMILIES)
FAMILIES_neon_dot   := gemm_int8
FAMILIES_neon_i8mm  := gemm_int8

# ---- sources: a file in its folder is in the build -------------------------------------------------------------

PLAIN  := $(wildcard base/*.c graph/*.c graph/passes/*.c quant/*.c engine/*.c engine/ops/*.c tokenizer/*.c \
            convert/*.c convert/arch/*.c tasks/*.c) kernels/cpu.c kernels/dispatch.c kernels/peak.c $(if $(BLAS),kernels/blas.c)
CLI    := $(wildcard cli/*.c)
FETCH  := $(if $(filter 0,$(CURL)),,$(wildcard fetch/*.c))
UNIT   := $(wildcard tests/unit/*.c)
KCHECK := $(wildcard tests/kernels/*.c)
FUZZ   := $(wildcard tests/fuzz/fuzz_*.c)
TOOLS  := $(basename $(notdir $(wildcard tools/*.c)))
MODELS := $(basename $(notdir $(wildcard tests/models/*.c)))
EXAMPLES := $(basename $(notdir $(wildcard examples/*.c)))

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))
KERNEL_OBJ := $(foreach isa,$(ISAS),$(foreach f,$(FAMILIES_$(isa)),$(BUILD)/kernels/$(f).$(isa).o))
# The tile of avxvnni on plain AVX2, for kcheck: see tests/kernels/avxvnni_emulated.h.
FLAGS_avxvnni_emulated := $(FLAGS_avx2) -Itests/kernels
EMULATED   := $(if $(filter avxvnni,$(ISAS)),$(BUILD)/kernels/gemm_int8.avxvnni_emulated.o)
LIB_OBJ := $(call obj,$(PLAIN)) $(BUILD)/gen/onnx.pb-c.o $(BUILD)/gen/sentencepiece.pb-c.o $(KERNEL_OBJ)
LIB     := $(BUILD)/libsardonyx.a

# ---- building --------------------------------------------------------------------------------------------------

.PHONY: all help lib check check-full kcheck-aarch64 demo bench lint static install clean deps test-programs docs
# Copies, and a file with PREFIX in it: made anew whenever they are asked for.
.PHONY: build/sardonyx build/sardonyx-static $(BUILD)/sardonyx.pc
.SECONDARY:
all: build/sardonyx $(BUILD)/sardonyx $(if $(FETCH),$(BUILD)/sardonyx-fetch) $(addprefix $(BUILD)/,$(TOOLS) $(EXAMPLES))

help:
	@echo 'make                  build/sardonyx, the command line (release)'
	@echo 'make check            set up, then every test on data inside the repository'
	@echo 'make check-full       check, plus everything in $$SDX_SHARED (default ../shared)'
	@echo 'make demo             set up, then the main job on a real model; MODEL=DIR takes your own checkpoint'
	@echo 'make kcheck-aarch64   the kernels of AArch64, cross-compiled and run by qemu-user, against scalar'
	@echo 'make bench            kernels as a share of this CPU; whole models beside other engines: docs/benchmarks.md'
	@echo 'make lib              $(BUILD)/libsardonyx.a, .so and sardonyx.pc'
	@echo 'make static           build/sardonyx-static, one file without shared libraries (4.2 MB with OPENBLAS=0)'
	@echo 'make install          into $$DESTDIR$$PREFIX (PREFIX=$(PREFIX))'
	@echo 'make lint             who includes whom, exported symbols'
	@echo 'make docs             generated pages in docs/'
	@echo 'make deps             install the Debian packages that are missing'
	@echo 'make clean            remove what was built; what was fetched into build/ stays'
	@echo 'variables             MODE=release|debug|asan|tsan|cov CC=gcc|clang PARALLEL=openmp|pthread OPENBLAS=1|0'
	@echo '                      SNDFILE=1|0 CURL=1|0 PREFIX=DIR DESTDIR=DIR V=1 (shows the commands)'

lib: $(LIB) $(BUILD)/libsardonyx.so $(BUILD)/sardonyx.pc

$(BUILD)/gen/onnx.pb-c.c: graph/onnx.proto
$(BUILD)/gen/sentencepiece.pb-c.c: tokenizer/sentencepiece.proto
$(BUILD)/gen/%.pb-c.c:
	@mkdir -p $(@D)
	$(call say,GEN)
	$(Q)protoc-c --proto_path=$(<D) --c_out=$(@D) $<
$(BUILD)/gen/%.pb-c.h: $(BUILD)/gen/%.pb-c.c ;
$(BUILD)/gen/%.pb-c.o: $(BUILD)/gen/%.pb-c.c
	$(call say,CC)
	$(Q)$(CC) -std=c17 $(MODE_$(MODE)) -fPIC -fvisibility=hidden -c $< -o $@
$(call obj,$(wildcard graph/*.c)): | $(BUILD)/gen/onnx.pb-c.h
# The page of `inspect --html` as a C array, so that the program stays one file.
$(BUILD)/gen/inspect_html.h: graph/inspect.html
	@mkdir -p $(@D)
	$(call say,GEN)
	$(Q){ echo 'static const char inspect_page[] = {'; od -An -v -tu1 $< | sed 's/[0-9][0-9]*/&,/g'; echo '0};'; } > $@
$(call obj,graph/html.c): | $(BUILD)/gen/inspect_html.h
$(call obj,$(wildcard tokenizer/*.c)): | $(BUILD)/gen/sentencepiece.pb-c.h

# Loops over whole weights, worth vectors.
$(BUILD)/quant/%.o: CFLAGS += -O3
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CFLAGS) -c $< -o $@

define isa_rule
$(BUILD)/kernels/%.$(1).o: kernels/%.c
	@mkdir -p $$(@D)
	$$(call say,CC)
	$(Q)$(CC) $(CFLAGS) $(KERNEL) $(FLAGS_$(1)) $$(FLAGS_$$*) -DSDX_ISA_TAG=$(1) -DSDX_ISA_IS_$(1)=1 -c $$< -o $$@
endef
$(foreach isa,$(ISAS) $(if $(EMULATED),avxvnni_emulated),$(eval $(call isa_rule,$(isa))))

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(call say,AR)
	$(Q)$(AR) rcs $@ $^
$(BUILD)/libsardonyx.so: $(LIB_OBJ)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -shared -Wl,-soname,libsardonyx.so.0 -Wl,--no-undefined $^ -o $@ $(LDLIBS)
$(BUILD)/sardonyx.pc:
	@printf 'prefix=%s\nName: sardonyx\nDescription: transformer inference in C\nVersion: %s\nCflags: -I$${prefix}/include\nLibs: -L$${prefix}/lib -lsardonyx\nLibs.private: %s\n' \
	  '$(PREFIX)' '$(VERSION)' '$(LDLIBS) $(THREAD)' > $@

$(BUILD)/sardonyx: $(call obj,$(CLI)) $(LIB)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(LDLIBS)
# A program of its own, so that only downloads load libcurl and the many libraries behind it.
$(BUILD)/sardonyx-fetch: $(call obj,$(FETCH))
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ -lcurl -lnettle -ljansson
ifeq ($(MODE),release)
build/sardonyx: $(BUILD)/sardonyx $(if $(FETCH),$(BUILD)/sardonyx-fetch)
	@cmp -s $< $@ || cp -f $^ build
else
build/sardonyx: ;
endif

$(addprefix $(BUILD)/,$(TOOLS)): $(BUILD)/%: $(BUILD)/tools/%.o $(LIB)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(LDLIBS)
# As another project sees it: the header by its installed name.
$(call obj,$(addprefix examples/,$(addsuffix .c,$(EXAMPLES)))): CFLAGS += -Iinclude
$(addprefix $(BUILD)/,$(EXAMPLES)): $(BUILD)/%: $(BUILD)/examples/%.o $(LIB)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(LDLIBS)
$(addprefix $(BUILD)/,$(MODELS)): $(BUILD)/%: $(BUILD)/tests/models/%.o $(LIB)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(LDLIBS)
# Of kernels alone, so that another machine's need none of its libraries.
$(BUILD)/kcheck: $(call obj,$(KCHECK) base/dtype.c $(filter kernels/%,$(PLAIN))) $(KERNEL_OBJ) $(EMULATED)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ -lm

# The unit runner's list of suites is made from the file names: tests/unit/test_x.c defines x_suite().
$(BUILD)/gen/suites.h: $(UNIT)
	@mkdir -p $(@D)
	@for f in $(notdir $(basename $(filter %.c,$(filter tests/unit/test_%,$(UNIT))))); do echo "SUITE($${f#test_})"; done > $@
$(call obj,tests/unit/main.c): $(BUILD)/gen/suites.h
$(BUILD)/unit: $(call obj,$(UNIT)) $(LIB)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(LDLIBS) $(shell pkg-config --libs check 2>/dev/null || echo -lcheck)
# Each fuzz target twice: replayed over its corpus here, and under libFuzzer by `make CC=clang MODE=asan fuzz-NAME`.
$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/replay.o $(LIB)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $^ -o $@ $(LDLIBS)
fuzz-%: $(LIB) $(BUILD)/tests/fuzz/fuzz_%.o
	$(CC) $(LDFLAGS) -fsanitize=fuzzer $(BUILD)/tests/fuzz/fuzz_$*.o $(LIB) -o $(BUILD)/libfuzzer_$* $(LDLIBS)
	$(BUILD)/libfuzzer_$* -max_total_time=$(or $(SECONDS),60) tests/fuzz/corpus/$*

test-programs: $(BUILD)/sardonyx $(if $(FETCH),$(BUILD)/sardonyx-fetch) $(BUILD)/unit $(BUILD)/kcheck $(addprefix $(BUILD)/,$(TOOLS) $(MODELS) $(EXAMPLES)) \
               $(patsubst tests/fuzz/%.c,$(BUILD)/%,$(FUZZ))

static: deps
	$(MAKE) build/sardonyx-static build/sardonyx
# These stand before the library's own: Debian has no static libsndfile, and OpenBLAS, which is else loaded when it is
# wanted, has to be in the file.
STATIC := $(patsubst %,$(BUILD)/static/%.o,audio_file $(if $(BLAS),blas))
$(BUILD)/static/audio_file.o: tasks/audio_file.c
$(BUILD)/static/blas.o: kernels/blas.c
$(STATIC):
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CFLAGS) -USDX_WITH_SNDFILE -DSDX_BLAS_LINKED -c $< -o $@
$(BUILD)/sardonyx-static: $(call obj,$(CLI)) $(STATIC) $(LIB)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -static -s $^ -o $@ $(filter-out -lsndfile,$(LDLIBS)) $(if $(BLAS),-lopenblas) -lpthread
build/sardonyx-static: $(BUILD)/sardonyx-static
	@cmp -s $< $@ || cp -f $< $@

install: lib all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include
	install -m 755 $(BUILD)/sardonyx $(if $(FETCH),$(BUILD)/sardonyx-fetch) $(DESTDIR)$(PREFIX)/bin
	install -m 644 include/sardonyx.h $(DESTDIR)$(PREFIX)/include/sardonyx.h
	install -m 644 $(LIB) $(DESTDIR)$(PREFIX)/lib/libsardonyx.a
	install -m 755 $(BUILD)/libsardonyx.so $(DESTDIR)$(PREFIX)/lib/libsardonyx.so.0
	ln -sf libsardonyx.so.0 $(DESTDIR)$(PREFIX)/lib/libsardonyx.so
	install -m 644 $(BUILD)/sardonyx.pc $(DESTDIR)$(PREFIX)/lib/pkgconfig/sardonyx.pc

# ---- checking ----------------------------------------------------------------------------------------------------

deps:
	@sh tools/deps.sh

check: deps
	@bash tests/run.sh check
check-full:
	@sh tools/deps.sh clang libomp-dev chromium gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
	@bash tests/run.sh full
demo: deps
	@bash tools/demo.sh $(if $(MODEL),'$(MODEL)')
bench: deps
	@$(MAKE) --no-print-directory all $(BUILD)/kcheck
	@bash bench/run.sh
# AArch64's tiers on this machine: Debian's gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user.
kcheck-aarch64:
	$(MAKE) CC=aarch64-linux-gnu-gcc OPENBLAS=0 build/$(MODE)-aarch64-noblas/kcheck
	qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu build/$(MODE)-aarch64-noblas/kcheck
lint:
	@sh tools/lint.sh $(BUILD)
docs: $(BUILD)/sardonyx
	$(BUILD)/sardonyx ops --markdown > docs/operators.md

clean:
	rm -rf build/release* build/debug* build/asan* build/tsan* build/cov* build/sardonyx*

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
