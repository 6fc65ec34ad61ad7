# Any Linux, from any machine, with the compiler and the C libraries of Zig (`pip install ziglang`):
#
#   cmake --toolchain csrc/toolchains/zig.cmake -DEDGEQ_ZIG=PROGRAM -DEDGEQ_ZIG_TARGET=aarch64-linux-musl ...
#
# EDGEQ_ZIG_TARGET is (aarch64|x86_64)-linux-musl or arm-linux-musleabihf, for static programs, or the same with
# gnu.VERSION for libraries: they load where glibc has that version or a later one.
foreach(name IN ITEMS EDGEQ_ZIG EDGEQ_ZIG_TARGET)
  if(NOT DEFINED ${name})
    message(FATAL_ERROR "${name} is not set: ${CMAKE_CURRENT_LIST_FILE} says what it is")
  endif()
endforeach()
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EDGEQ_ZIG EDGEQ_ZIG_TARGET)

set(CMAKE_SYSTEM_NAME Linux)
string(REGEX REPLACE "-.*" "" CMAKE_SYSTEM_PROCESSOR "${EDGEQ_ZIG_TARGET}")
# The least CPU of each architecture, in Zig's spelling; what is above it has its own files and flags (isa.cmake).
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64")
  set(cpu generic)  # Armv8.0
elseif(CMAKE_SYSTEM_PROCESSOR STREQUAL "arm")
  set(cpu generic+v7a+vfp3d16)
else()
  set(cpu ${CMAKE_SYSTEM_PROCESSOR})
endif()

foreach(language IN ITEMS C CXX)
  set(CMAKE_${language}_COMPILER_TARGET "${EDGEQ_ZIG_TARGET}")
  set(CMAKE_${language}_FLAGS_INIT "-mcpu=${cpu}")
  # Zig's archiver is a subcommand, which CMAKE_AR cannot hold. D: neither dates nor owners.
  set(CMAKE_${language}_ARCHIVE_CREATE "\"${EDGEQ_ZIG}\" ar qcD <TARGET> <OBJECTS>")
  set(CMAKE_${language}_ARCHIVE_APPEND "\"${EDGEQ_ZIG}\" ar qD <TARGET> <OBJECTS>")
  set(CMAKE_${language}_ARCHIVE_FINISH "\"${EDGEQ_ZIG}\" ranlib -D <TARGET>")
endforeach()
set(CMAKE_C_COMPILER "${EDGEQ_ZIG}" cc)
set(CMAKE_CXX_COMPILER "${EDGEQ_ZIG}" c++)

# Probes only compile: at its first link for a target, Zig builds the C and C++ libraries.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
