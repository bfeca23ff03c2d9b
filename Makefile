# The two commands of a newcomer are `make quickstart` and `make test`; each does all of its own set-up. `make help` lists the rest.
PRESET ?= release
BUILD := build/$(PRESET)
BENCHMARKS := .deps/benchmarks
JOBS ?= $(shell nproc)

.PHONY: help setup build test quickstart benchmarks interop bench aarch64 format tidy install clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 20

setup:  ## install Debian packages, fetch LibTorch and the demonstration model into .deps/
	@scripts/setup

build: setup  ## build potstill, potstill-edge and the tests in build/release
	@cmake --preset $(PRESET) $(if $(POTSTILL_LIBTORCH),-DPOTSTILL_LIBTORCH=$(POTSTILL_LIBTORCH)) >$(PRESET).configure.log 2>&1 || { cat $(PRESET).configure.log; exit 1; }
	@rm -f $(PRESET).configure.log
	@cmake --build --preset $(PRESET) -j $(JOBS)
	@ln -sf $(BUILD)/compile_commands.json compile_commands.json

test: build  ## build and run every test, those of the ARM build too where it can be had
	@JOBS=$(JOBS) scripts/aarch64 --build || [ $$? = 77 ]
	@ctest --preset $(PRESET) -j $(JOBS)

quickstart: build  ## distil SmolLM2-135M into a 4-bit student, stage by stage, and say how to chat with it
	@$(BUILD)/potstill run recipes/quickstart.yaml $(if $(wildcard $(BENCHMARKS)/arc_easy/validation.jsonl),\
	  --set evaluate.tasks=[arc_easy] --set evaluate.split=validation --set evaluate.data=$(CURDIR)/$(BENCHMARKS))

benchmarks:  ## bring benchmark rows into .deps/benchmarks, for `evaluate --data`; the quickstart then scores ARC-Easy
	@python3 scripts/fetch_benchmarks.py --out $(BENCHMARKS)

interop: build  ## check our files with the field's own packages (own Python environment in .deps/interop)
	@tests/interop/run.sh $(BUILD)

bench: build  ## micro-benchmarks and the comparisons with the peers
	@cmake --preset $(PRESET) -DPOTSTILL_BENCH=ON >/dev/null && cmake --build --preset $(PRESET) -j $(JOBS)

aarch64:  ## potstill-edge for 64-bit ARM in build/aarch64, its tests under qemu
	@scripts/aarch64

format:  ## clang-format every source file
	@git ls-files '*.h' '*.cpp' | xargs clang-format -i

tidy: build  ## clang-tidy every source file
	@mkdir -p build/tidy  # clang takes no header that gcc compiled beforehand: its source instead; nor all of gcc's flags
	@cp $(BUILD)/CMakeFiles/torch_pch.dir/cmake_pch.hxx build/tidy/torch_pch.hxx
	@sed -E 's# -include [^ ]*cmake_pch\.hxx# -include $(CURDIR)/build/tidy/torch_pch.hxx#g; s# -Winvalid-pch##g; s# -f(no-)?tree-[a-z-]+##g' \
	  $(BUILD)/compile_commands.json >build/tidy/compile_commands.json
	@git ls-files 'potstill/*.cpp' | xargs -P $(JOBS) -n 4 clang-tidy -p build/tidy --quiet

install: build  ## install both binaries (DESTDIR and PREFIX as usual)
	@cmake --install $(BUILD) $(if $(PREFIX),--prefix $(PREFIX))

clean:  ## remove build/ (not .deps/)
	@rm -rf build
