# LibTorch as one imported target, without find_package(Torch): that one wants nvcc and a CUDA language even for a CPU build.
# Torch_ROOT is the torch folder of an unpacked wheel, or an unpacked libtorch; it holds include/ and lib/.
set(Torch_ROOT "" CACHE PATH "folder with LibTorch's include/ and lib/")
set(CUDA "auto" CACHE STRING "CUDA backend: auto (when LibTorch has it and its libraries are there), on, off")
set_property(CACHE CUDA PROPERTY STRINGS auto on off)
if(NOT EXISTS "${Torch_ROOT}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "Torch_ROOT=\"${Torch_ROOT}\" holds no lib/libtorch_cpu.so. Run ./retort, which sets it, "
                      "or give -DTorch_ROOT=<folder of a LibTorch 2.11 with include/ and lib/>")
endif()

add_library(torch_api INTERFACE)
target_include_directories(torch_api SYSTEM INTERFACE
  ${Torch_ROOT}/include ${Torch_ROOT}/include/torch/csrc/api/include)
target_link_directories(torch_api INTERFACE ${Torch_ROOT}/lib)
target_link_libraries(torch_api INTERFACE torch_cpu c10)
# The CUDA wheel's libtorch_cpu needs libcudart and libcupti; its own RPATH finds them beside it in nvidia/.
target_link_options(torch_api INTERFACE -Wl,--allow-shlib-undefined)

set(RETORT_CUDA OFF)
if(NOT CUDA STREQUAL "off" AND EXISTS "${Torch_ROOT}/lib/libtorch_cuda.so")
  # Without an NVIDIA driver the backend could only report that there is no device.
  if(CUDA STREQUAL "on" OR EXISTS /dev/nvidiactl)
    set(RETORT_CUDA ON)
    # No symbol refers to libtorch_cuda; a linker that defaults to --as-needed would drop it.
    target_link_options(torch_api INTERFACE -Wl,--no-as-needed)
    target_link_libraries(torch_api INTERFACE torch_cuda c10_cuda)
  endif()
elseif(CUDA STREQUAL "on")
  message(FATAL_ERROR "CUDA=on, but ${Torch_ROOT} has no libtorch_cuda.so")
endif()
message(STATUS "LibTorch: ${Torch_ROOT} (CUDA backend ${RETORT_CUDA})")
