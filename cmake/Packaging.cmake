# cpack --config build/edge/CPackConfig.cmake: potstill-edge alone, with its library, header and example, as .deb and tar.gz.
set(CPACK_PACKAGE_NAME potstill-edge)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Small runtime for GGUF language models, with a server and a C library")
set(CPACK_PACKAGE_VENDOR potstill)
set(CPACK_PACKAGE_CONTACT "potstill")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_COMPONENTS_ALL edge)  # LibTorch's half is no package: it brings gigabytes
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libc6 (>= 2.36)")  # all else is linked in
include(CPack)
