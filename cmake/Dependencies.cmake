# System libraries; scripts/debian-packages.txt names the packages that bring them.
find_package(Threads REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(SQLite3 REQUIRED)
if(POTSTILL_TORCH)
  find_package(CURL REQUIRED)
else()
  find_package(CURL)  # only teachers behind an endpoint need it: potstill-edge builds without
endif()
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(PkgConfig REQUIRED)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)

# Debian's -dev package brings both kinds; the static one keeps potstill-edge a single file that runs anywhere.
find_library(POTSTILL_STATIC_UTF8PROC libutf8proc.a HINTS ${UTF8PROC_LIBDIR})
if(POTSTILL_STATIC_UTF8PROC)
  set_property(TARGET PkgConfig::UTF8PROC PROPERTY INTERFACE_LINK_LIBRARIES ${POTSTILL_STATIC_UTF8PROC})
endif()
