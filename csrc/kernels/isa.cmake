# The table of instruction sets: the level's name in file names, its flags, its macro. Only the files of a level get
# its flags. A compiler that lacks a flag builds without that level and says so.
include(CheckCXXCompilerFlag)

# edgeq_isa(<level> <macro> <flags>...) sets EDGEQ_ISA_<level>_FLAGS when the compiler takes all of them.
function(edgeq_isa level macro)
  set(available TRUE)
  foreach(flag IN LISTS ARGN)
    string(MAKE_C_IDENTIFIER "EDGEQ_CXX_HAS${flag}" probe)
    check_cxx_compiler_flag("${flag}" ${probe})
    if(NOT ${probe})
      message(STATUS "edgeq: the compiler lacks ${flag}; the ${level} kernels are left out")
      set(available FALSE)
    endif()
  endforeach()
  if(available)
    set(flags ${ARGN})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # GCC 12 takes the undefined sources inside its own AVX-512 intrinsics for uninitialized reads.
      list(APPEND flags -Wno-uninitialized -Wno-maybe-uninitialized)
      # Copies of functions and loops for special values, a tenth of the kernels' size: their authors have made those
      # that pay.
      list(APPEND flags -fno-ipa-cp-clone -fno-split-loops "$<$<CONFIG:Release>:-O2>")
      # Scheduling before registers are allocated mixes the loads of what follows among the products, and spills where
      # a tile fills the registers.
      if(level MATCHES "^arm64_")
        list(APPEND flags -fno-schedule-insns)
      endif()
    endif()
    # Kernels neither throw nor call what does: no tables for unwinding through them.
    list(APPEND flags "$<$<CONFIG:Release>:-fno-exceptions>" "$<$<CONFIG:Release>:-fno-asynchronous-unwind-tables>")
    set(EDGEQ_ISA_${level}_FLAGS ${flags} PARENT_SCOPE)
    set(EDGEQ_ISA_${level}_MACRO ${macro} PARENT_SCOPE)
    list(APPEND EDGEQ_ISAS ${level})
    set(EDGEQ_ISAS ${EDGEQ_ISAS} PARENT_SCOPE)
  endif()
endfunction()

set(EDGEQ_ISAS)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64|i[3-6]86)$")
  edgeq_isa(x86_avx2 EDGEQ_HAVE_AVX2 -mavx2 -mfma -mbmi2)
  edgeq_isa(x86_avxvnni EDGEQ_HAVE_AVXVNNI -mavx2 -mfma -mbmi2 -mavxvnni)
  edgeq_isa(x86_avx512vnni EDGEQ_HAVE_AVX512VNNI
            -mavx2 -mfma -mbmi2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
            -mprefer-vector-width=512)
  edgeq_isa(x86_avx512vbmi EDGEQ_HAVE_AVX512VBMI
            -mavx2 -mfma -mbmi2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi
            -mprefer-vector-width=512)
  if(CMAKE_SIZEOF_VOID_P EQUAL 8)  # tiles exist in 64-bit mode only
    edgeq_isa(x86_amxint8 EDGEQ_HAVE_AMXINT8
              -mavx2 -mfma -mbmi2 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi
              -mamx-tile -mamx-int8 -mprefer-vector-width=512)
  endif()
endif()

# Compilers spell an Arm extension in two ways: GCC and upstream Clang take -march, Zig's Clang only -mcpu.
# edgeq_arm_isa(<level> <macro> <-march value> <-mcpu value>)
function(edgeq_arm_isa level macro march mcpu)
  check_cxx_compiler_flag("-march=${march}" EDGEQ_CXX_HAS_march_${level})
  if(EDGEQ_CXX_HAS_march_${level})
    edgeq_isa(${level} ${macro} "-march=${march}")
  else()
    edgeq_isa(${level} ${macro} "-mcpu=${mcpu}")
  endif()
  foreach(name IN ITEMS EDGEQ_ISAS EDGEQ_ISA_${level}_FLAGS EDGEQ_ISA_${level}_MACRO)
    set(${name} "${${name}}" PARENT_SCOPE)
  endforeach()
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  edgeq_isa(arm_neon EDGEQ_HAVE_NEON)  # the baseline of the architecture
  edgeq_arm_isa(arm64_neondot EDGEQ_HAVE_NEONDOT armv8.2-a+dotprod generic+v8_2a+dotprod)
  edgeq_arm_isa(arm64_neoni8mm EDGEQ_HAVE_NEONI8MM armv8.2-a+dotprod+i8mm generic+v8_2a+dotprod+i8mm)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^arm")
  edgeq_isa(arm_neon EDGEQ_HAVE_NEON -mfpu=neon)
endif()

# Adds <family>/<level>.cc for every level that this build has and the family implements.
function(edgeq_kernel_family target family)
  target_sources(${target} PRIVATE ${ARGN})
  foreach(level IN LISTS EDGEQ_ISAS)
    set(source "${CMAKE_CURRENT_SOURCE_DIR}/${family}/${level}.cc")
    if(EXISTS "${source}")
      target_sources(${target} PRIVATE "${source}")
      set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS "${EDGEQ_ISA_${level}_FLAGS}")
    endif()
  endforeach()
endfunction()
