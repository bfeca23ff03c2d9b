# torch::torch: LibTorch out of an unpacked torch wheel (or POTSTILL_LIBTORCH), as an imported target of ours. The wheel's
# own TorchConfig.cmake asks for a CUDA toolkit when the wheel was built with CUDA; nothing here needs one.
set(POTSTILL_TORCH_ROOT ${POTSTILL_LIBTORCH})
if(NOT POTSTILL_TORCH_ROOT)
  set(POTSTILL_TORCH_ROOT ${PROJECT_SOURCE_DIR}/.deps/libtorch/torch)
endif()
if(NOT EXISTS ${POTSTILL_TORCH_ROOT}/include/ATen/ATen.h OR NOT EXISTS ${POTSTILL_TORCH_ROOT}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "No LibTorch in ${POTSTILL_TORCH_ROOT}: run scripts/setup, or give your own with -DPOTSTILL_LIBTORCH=DIR "
                      "(the folder with include/ and lib/), or build without it: -DPOTSTILL_TORCH=OFF")
endif()

# LibTorch's include folder holds a copy of fmt of its own, which would shadow the system's in whatever also includes
# LibTorch: its headers are reached through a folder of links that leaves the third-party copies out.
set(torch_include ${PROJECT_BINARY_DIR}/torch_include)
file(MAKE_DIRECTORY ${torch_include})
foreach(name ATen c10 torch caffe2)
  if(EXISTS ${POTSTILL_TORCH_ROOT}/include/${name})
    file(CREATE_LINK ${POTSTILL_TORCH_ROOT}/include/${name} ${torch_include}/${name} SYMBOLIC)
  endif()
endforeach()
add_library(torch::torch INTERFACE IMPORTED)
target_include_directories(torch::torch SYSTEM INTERFACE ${torch_include})
set(torch_libraries ${POTSTILL_TORCH_ROOT}/lib/libtorch_cpu.so ${POTSTILL_TORCH_ROOT}/lib/libc10.so)
if(EXISTS ${POTSTILL_TORCH_ROOT}/lib/libtorch_cuda.so)
  # Nothing calls into libtorch_cuda by name: it registers its kernels when it is loaded, so it must be kept.
  list(APPEND torch_libraries -Wl,--no-as-needed ${POTSTILL_TORCH_ROOT}/lib/libtorch_cuda.so ${POTSTILL_TORCH_ROOT}/lib/libc10_cuda.so -Wl,--as-needed)
  set(POTSTILL_TORCH_CUDA ON)
endif()
# ignore-in-shared-libs: the CUDA runtime libraries that libtorch_cpu names are found at run time by its own RPATH.
target_link_libraries(torch::torch INTERFACE ${torch_libraries} -Wl,--unresolved-symbols=ignore-in-shared-libs
                                             -Wl,--disable-new-dtags -Wl,-rpath,${POTSTILL_TORCH_ROOT}/lib)

# One precompiled header serves every target that includes LibTorch: ATen alone takes about ten seconds to parse.
file(WRITE ${PROJECT_BINARY_DIR}/torch_pch.cpp "// carries the precompiled header\n")
add_library(torch_pch STATIC ${PROJECT_BINARY_DIR}/torch_pch.cpp)
target_link_libraries(torch_pch PUBLIC potstill_options torch::torch)
target_precompile_headers(torch_pch PRIVATE <ATen/ATen.h> <torch/csrc/autograd/custom_function.h> <string> <vector>)
