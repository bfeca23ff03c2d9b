# Which folder may include which: the one table that both the build and tests/layers_test.py read. A folder is a library
# that links exactly these. TORCH marks the folders that may include LibTorch.
set(POTSTILL_LAYERS
  "base:"
  "formats:base"
  "text:base"
  "lm:base formats text"
  "kernels:base formats"
  "edge:base formats text lm kernels"
  "server:base formats text lm"
  "capi:base edge"
  "synth:base text lm"
  "eval:base text lm"
  "search:base"
  "recipe:base synth search nn distill quant eval"
  "nn:base formats text lm TORCH"
  "optim:base TORCH"
  "distill:base formats text lm nn optim TORCH"
  "quant:base formats text lm nn TORCH"
  "stages:base formats text lm kernels edge synth eval search recipe nn optim distill quant TORCH"
  "cli:base formats text lm kernels edge server synth eval search recipe stages"
)
set(POTSTILL_SHARED_CODE base formats text lm kernels edge)  # they go into libpotstill_edge.so as well
set(POTSTILL_FOLDERS)
foreach(row IN LISTS POTSTILL_LAYERS)
  string(REGEX MATCH "^([a-z]+):(.*)$" _ "${row}")
  set(folder ${CMAKE_MATCH_1})
  string(REPLACE " " ";" allowed "${CMAKE_MATCH_2}")
  set(POTSTILL_ALLOWED_${folder} ${allowed})
  if("TORCH" IN_LIST allowed)
    set(POTSTILL_TORCH_${folder} ON)
    list(REMOVE_ITEM POTSTILL_ALLOWED_${folder} TORCH)
  endif()
  if(POTSTILL_TORCH OR NOT POTSTILL_TORCH_${folder})
    list(APPEND POTSTILL_FOLDERS ${folder})
  endif()
endforeach()

# potstill_library([LINKS system libraries...]): the folder's library out of its *.cpp, linked to the folders it may include.
# recipe reads only the *_config.h headers of the folders above it, which need no linking.
function(potstill_library)
  cmake_parse_arguments(arg "" "" "LINKS;EXCLUDE" ${ARGN})
  get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  foreach(excluded IN LISTS arg_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "/${excluded}$")
  endforeach()
  if(NOT sources)
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/empty.cpp "// ${folder} has headers alone so far\n")
    set(sources ${CMAKE_CURRENT_BINARY_DIR}/empty.cpp)
  endif()
  add_library(potstill_${folder} STATIC ${sources})
  target_link_libraries(potstill_${folder} PUBLIC potstill_options ${arg_LINKS})
  if(folder IN_LIST POTSTILL_SHARED_CODE)
    set_target_properties(potstill_${folder} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endif()
  foreach(other IN LISTS POTSTILL_ALLOWED_${folder})
    if(NOT folder STREQUAL "recipe" OR other STREQUAL "base")
      target_link_libraries(potstill_${folder} PUBLIC potstill_${other})
    endif()
  endforeach()
  if(POTSTILL_TORCH_${folder})
    target_link_libraries(potstill_${folder} PUBLIC torch::torch)
    target_precompile_headers(potstill_${folder} REUSE_FROM torch_pch)
  endif()
endfunction()
