# potstill_options: the flags that every target of ours compiles with.
add_library(potstill_options INTERFACE)
target_compile_options(potstill_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                                                  -Wcast-qual -Wunused -Wno-psabi)
if(POTSTILL_WERROR)
  target_compile_options(potstill_options INTERFACE -Werror)
endif()
if(POTSTILL_SANITIZE)
  target_compile_options(potstill_options INTERFACE -fsanitize=${POTSTILL_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(potstill_options INTERFACE -fsanitize=${POTSTILL_SANITIZE})
  # What the sanitizers put in lets gcc 12 warn of its own <regex>.
  target_compile_options(potstill_options INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
endif()
target_include_directories(potstill_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(potstill_options INTERFACE POTSTILL_VERSION="${PROJECT_VERSION}")
# A shared library that nothing calls is not loaded: potstill-edge stays small and starts fast.
target_link_options(potstill_options INTERFACE LINKER:--as-needed)
