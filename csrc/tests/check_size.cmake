# cmake -DPROGRAM=... -DSTRIP=... -DMOST=BYTES -P check_size.cmake: the stripped program has at most MOST bytes.
set(stripped "${PROGRAM}.stripped")
execute_process(COMMAND "${STRIP}" -o "${stripped}" "${PROGRAM}" COMMAND_ERROR_IS_FATAL ANY)
file(SIZE "${stripped}" bytes)
file(REMOVE "${stripped}")
message("${bytes} bytes of ${MOST}")
if(bytes GREATER MOST)
  message(FATAL_ERROR "${PROGRAM} has ${bytes} bytes when stripped, more than ${MOST}")
endif()
