# Our own CUDA kernels: the language, when the backend is on. nvcc may lie outside PATH, where NVIDIA's packages put it.
if(RETORT_CUDA)
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    file(GLOB toolkits /usr/local/cuda*/bin)
    find_program(CMAKE_CUDA_COMPILER nvcc PATHS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin ${toolkits})
  endif()
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    message(FATAL_ERROR "the CUDA backend needs nvcc 13: put it on PATH, give -DCMAKE_CUDA_COMPILER, or build with CUDA=off")
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    # Machine code for A100 and its kin (8.x) and for Hopper, and code that newer drivers translate for newer chips.
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
  endif()
  set(CMAKE_CUDA_STANDARD 17)  # 20 is unknown to CMake before 3.26, for nvcc
  # LibTorch loads the shared run-time; a second, static one would not know its streams.
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  enable_language(CUDA)
endif()
