# add_kinds(TARGET FOLDER PREFIX): every FOLDER/<name>.cpp is one kind and defines one constant PREFIX_<name>.
# The generated PREFIX_kinds.inc lists KIND(<name>) for each; a file without its constant fails at link, by name.
function(add_kinds target folder prefix)
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cpp)
  set(entries "")
  foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME_WE)
    string(APPEND entries "KIND(${name})\n")
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/kinds/${prefix}_kinds.inc CONTENT "${entries}")
  target_sources(${target} PRIVATE ${sources})
  target_include_directories(${target} PRIVATE ${CMAKE_BINARY_DIR}/kinds)
endfunction()
