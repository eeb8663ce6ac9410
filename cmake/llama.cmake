# llama.cpp as built by cmake/llama into llama_ROOT: libllama + ggml (target llama_api) and its Jinja engine (jinja_api).
set(llama_ROOT "" CACHE PATH "where cmake/llama was installed: lib/ and include/")
if(NOT EXISTS "${llama_ROOT}/lib/libllama.a")
  message(FATAL_ERROR "llama_ROOT=\"${llama_ROOT}\" holds no lib/libllama.a. Run ./retort, which builds and sets it, "
                      "or build and install cmake/llama and give -Dllama_ROOT=<its prefix>")
endif()
add_library(llama_api INTERFACE)
target_include_directories(llama_api SYSTEM INTERFACE ${llama_ROOT}/include)
# libgomp comes from LibTorch: two OpenMP run-times in one process fight over the cores. Some builds have a hash in its name.
file(GLOB gomp RELATIVE ${Torch_ROOT}/lib ${Torch_ROOT}/lib/libgomp*.so*)
if(NOT gomp)
  set(gomp libgomp.so.1)
endif()
target_link_libraries(llama_api INTERFACE
  ${llama_ROOT}/lib/libllama.a -Wl,--start-group ${llama_ROOT}/lib/libggml.a ${llama_ROOT}/lib/libggml-cpu.a
  ${llama_ROOT}/lib/libggml-base.a -Wl,--end-group "$<$<BOOL:1>:-l:${gomp}>" pthread dl m)
target_link_directories(llama_api INTERFACE ${Torch_ROOT}/lib)

add_library(jinja_api INTERFACE)
target_include_directories(jinja_api SYSTEM INTERFACE ${llama_ROOT}/include/common ${llama_ROOT}/include)
target_link_libraries(jinja_api INTERFACE ${llama_ROOT}/lib/libretort_jinja.a llama_api)
