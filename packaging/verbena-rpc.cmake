# verbena_rpc_generate(TARGET PROTOS FILE.proto... [IMPORT_DIRS DIR...])
#
# Adds to TARGET the messages, clients and service bases of .proto files that lie in or below the
# current source folder; include them as "FILE.verbena.h". Links verbena::rpc. Found besides the
# files themselves: what IMPORT_DIRS has, and Verbena's own, as "proto/bulk.proto".
function(verbena_rpc_generate target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "PROTOS;IMPORT_DIRS")
  if(arg_UNPARSED_ARGUMENTS OR NOT arg_PROTOS)
    message(FATAL_ERROR "verbena_rpc_generate(TARGET PROTOS FILE.proto... [IMPORT_DIRS DIR...])")
  endif()
  find_program(VERBENA_PROTOC protoc)
  if(NOT VERBENA_PROTOC)
    message(FATAL_ERROR "verbena_rpc_generate: there is no protoc; install protobuf-compiler")
  endif()
  get_target_property(plugin verbena::protoc-gen-verbena IMPORTED_LOCATION)
  get_target_property(own verbena::rpc VERBENA_PROTO_DIR)
  set(paths "-I${CMAKE_CURRENT_SOURCE_DIR}")
  foreach(dir IN LISTS arg_IMPORT_DIRS own)
    get_filename_component(dir "${dir}" ABSOLUTE)
    list(APPEND paths "-I${dir}")
  endforeach()
  foreach(proto IN LISTS arg_PROTOS)
    get_filename_component(proto "${proto}" ABSOLUTE)
    file(RELATIVE_PATH relative "${CMAKE_CURRENT_SOURCE_DIR}" "${proto}")
    if(relative MATCHES "^\\.\\./")
      message(FATAL_ERROR "verbena_rpc_generate: ${proto} is not below ${CMAKE_CURRENT_SOURCE_DIR}")
    endif()
    string(REGEX REPLACE "\\.proto$" "" stem "${CMAKE_CURRENT_BINARY_DIR}/${relative}")
    add_custom_command(
      OUTPUT "${stem}.pb.cc" "${stem}.pb.h" "${stem}.verbena.h"
      COMMAND "${VERBENA_PROTOC}" ${paths} "--cpp_out=${CMAKE_CURRENT_BINARY_DIR}"
              "--plugin=protoc-gen-verbena=${plugin}" "--verbena_out=${CMAKE_CURRENT_BINARY_DIR}"
              "${proto}"
      DEPENDS "${proto}" "${plugin}"
      VERBATIM)
    target_sources(${target} PRIVATE "${stem}.pb.cc" "${stem}.pb.h" "${stem}.verbena.h")
  endforeach()
  target_include_directories(${target} PUBLIC "${CMAKE_CURRENT_BINARY_DIR}")
  target_link_libraries(${target} PUBLIC verbena::rpc)
endfunction()
