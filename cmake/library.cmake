# The project's own targets: one library a folder, warnings are errors, one shared precompiled header for ATen.
macro(retort_packages)
  find_package(PkgConfig REQUIRED)
  find_package(Threads REQUIRED)
  find_package(fmt REQUIRED)
  find_package(spdlog REQUIRED)
  find_package(nlohmann_json REQUIRED)
  find_package(yaml-cpp REQUIRED)
  find_package(CURL REQUIRED)
  find_package(OpenSSL REQUIRED)
  find_package(ZLIB REQUIRED)
  pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)
  pkg_check_modules(re2 REQUIRED IMPORTED_TARGET re2)
  pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
  pkg_check_modules(hdf5 REQUIRED IMPORTED_TARGET hdf5)
  pkg_check_modules(libpsl REQUIRED IMPORTED_TARGET libpsl)
  pkg_check_modules(tomlplusplus REQUIRED IMPORTED_TARGET tomlplusplus)
  # libsentencepiece.so exports an older protobuf that it was built with, and would be handed libphonenumber's, or hand
  # out its own: the process ends before main(). So libphonenumber and its protobuf are linked in whole and hidden.
  find_package(absl REQUIRED)
  find_package(ICU REQUIRED COMPONENTS uc i18n)
  find_library(phonenumber_library libphonenumber.a REQUIRED)
  find_library(protobuf_library libprotobuf.a REQUIRED)
  add_library(phonenumber INTERFACE)
  target_link_libraries(phonenumber INTERFACE
    -Wl,--exclude-libs,libphonenumber.a -Wl,--exclude-libs,libprotobuf.a ${phonenumber_library}
    ${protobuf_library} absl::strings absl::raw_hash_set absl::hash ICU::i18n ICU::uc ZLIB::ZLIB)
  # glibc's malloc gives large buffers back and leaves holes between the others: docs/performance.md has the figures.
  # No symbol refers to the library, so a linker that defaults to --as-needed would drop it.
  add_library(retort_malloc INTERFACE)
  if(NOT SANITIZE)
    find_library(tcmalloc tcmalloc_minimal REQUIRED)
    target_link_libraries(retort_malloc INTERFACE -Wl,--push-state,--no-as-needed,${tcmalloc},--pop-state)
  endif()
  # LibTorch ships the headers of a newer fmt than the one that spdlog was built with, and of an older protobuf than
  # libphonenumber's; ours must be found first.
  find_path(fmt_include fmt/format.h NO_CMAKE_FIND_ROOT_PATH PATHS /usr/include REQUIRED)
  find_path(protobuf_include google/protobuf/message.h NO_CMAKE_FIND_ROOT_PATH PATHS /usr/include REQUIRED)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/system)
  file(CREATE_LINK ${fmt_include}/fmt ${CMAKE_BINARY_DIR}/system/fmt SYMBOLIC)
  file(CREATE_LINK ${protobuf_include}/google ${CMAKE_BINARY_DIR}/system/google SYMBOLIC)
endmacro()

function(retort_options target)
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR})
  target_include_directories(${target} SYSTEM BEFORE PRIVATE ${CMAKE_BINARY_DIR}/system)
  # Without -fopenmp at::parallel_for is a plain loop, and nothing says so.
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:-fopenmp;-Wall;-Wextra;-Wpedantic;-Werror;-fno-math-errno>")
  if(SANITIZE)
    target_compile_options(${target} PRIVATE
      "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
    target_link_options(${target} PRIVATE -fsanitize=${SANITIZE})
  endif()
endfunction()

# For code that no loop waits for: -O1 compiles it in three quarters of the time.
function(retort_compile_quickly target)
  target_compile_options(${target} PRIVATE "$<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>")
endfunction()

# The header costs 20 s once and saves 6 s a file; only folders that are full of ATen use it. What a header leaves to be
# instantiated is instantiated in every file that uses it: autograd's would cost each 1.6 s, CLI11's 4 s.
function(retort_pch target)
  if(NOT TARGET retort_pch_owner)
    file(WRITE ${CMAKE_BINARY_DIR}/pch_owner.cpp "namespace retort { void pch_owner() {} }\n")
    add_library(retort_pch_owner STATIC ${CMAKE_BINARY_DIR}/pch_owner.cpp)
    retort_options(retort_pch_owner)
    target_link_libraries(retort_pch_owner PUBLIC retort_core torch_api)  # the same flags as its users
    target_precompile_headers(retort_pch_owner PRIVATE
      <ATen/ATen.h> <fmt/format.h> <algorithm> <functional> <map> <memory> <optional> <span> <string> <vector>)
  endif()
  target_precompile_headers(${target} REUSE_FROM retort_pch_owner)
endfunction()

# retort_library(NAME [PCH] [KINDS folder prefix ...] DEPENDS targets...): a static library of this folder's *.cpp.
function(retort_library name)
  cmake_parse_arguments(arg "PCH" "" "KINDS;DEPENDS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  if(NOT sources)  # a folder that has only kinds so far
    file(WRITE ${CMAKE_BINARY_DIR}/${name}_empty.cpp "namespace retort {}\n")
    set(sources ${CMAKE_BINARY_DIR}/${name}_empty.cpp)
  endif()
  add_library(${name} STATIC ${sources})
  retort_options(${name})
  target_link_libraries(${name} PUBLIC ${arg_DEPENDS})
  while(arg_KINDS)
    list(POP_FRONT arg_KINDS folder prefix)
    add_kinds(${name} ${CMAKE_CURRENT_SOURCE_DIR}/${folder} ${prefix})
  endwhile()
  if(arg_PCH)
    retort_pch(${name})
  endif()
endfunction()
