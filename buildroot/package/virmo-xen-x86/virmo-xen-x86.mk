################################################################################
#
# virmo-xen-x86
#
################################################################################

# Whatever release Buildroot's own package (Arm) has: dom0s of both
# architectures then come from one source. The hashes are in a folder of that
# release, so that a release that nobody looked at does not build.
VIRMO_XEN_X86_VERSION = $(XEN_VERSION)
VIRMO_XEN_X86_SITE = $(XEN_SITE)
VIRMO_XEN_X86_SOURCE = xen-$(VIRMO_XEN_X86_VERSION).tar.gz
VIRMO_XEN_X86_DL_SUBDIR = xen
VIRMO_XEN_X86_LICENSE = GPL-2.0
VIRMO_XEN_X86_LICENSE_FILES = COPYING LICENSES/GPL-2.0
VIRMO_XEN_X86_CPE_ID_VENDOR = xen
VIRMO_XEN_X86_CPE_ID_PRODUCT = xen
VIRMO_XEN_X86_CPE_ID_PREFIX = cpe:2.3:o

VIRMO_XEN_X86_DEPENDENCIES = \
	host-acpica \
	host-bison \
	host-flex \
	host-pkgconf \
	host-python3

VIRMO_XEN_X86_CONF_ENV = PYTHON=$(HOST_DIR)/bin/python3
VIRMO_XEN_X86_MAKE_ENV = \
	XEN_TARGET_ARCH=x86_64 \
	CROSS_COMPILE=$(TARGET_CROSS) \
	HOST_EXTRACFLAGS="-Wno-error" \
	XEN_HAS_CHECKPOLICY=n \
	$(TARGET_CONFIGURE_OPTS)

# No guest of ours boots from firmware, and nothing may be fetched by git
# while building.
VIRMO_XEN_X86_CONF_OPTS = \
	--disable-docs \
	--disable-golang \
	--disable-ipxe \
	--disable-ocamltools \
	--disable-ovmf \
	--disable-pvshim \
	--disable-pygrub \
	--disable-qemu-traditional \
	--disable-rombios \
	--disable-seabios \
	--disable-stubdom \
	--disable-werror \
	--disable-xsmpolicy \
	--with-initddir=/etc/init.d \
	--with-sysconfig-leaf-dir=default \
	--with-system-qemu=/usr/bin/qemu-system-i386 \
	--with-xenstored=xenstored \
	$(VIRMO_AGENT_XEN_CONF_OPTS)

ifeq ($(BR2_PACKAGE_VIRMO_XEN_X86_HYPERVISOR),y)
VIRMO_XEN_X86_MAKE_OPTS += dist-xen
VIRMO_XEN_X86_INSTALL_IMAGES = YES
define VIRMO_XEN_X86_INSTALL_IMAGES_CMDS
	$(INSTALL) -D -m 0644 $(@D)/xen/xen $(BINARIES_DIR)/xen
	$(INSTALL) -D -m 0644 $(@D)/xen/xen.gz $(BINARIES_DIR)/xen.gz
	if [ -e $(@D)/xen/xen.efi ]; then \
		$(INSTALL) -D -m 0644 $(@D)/xen/xen.efi $(BINARIES_DIR)/xen.efi; \
	fi
endef
else
VIRMO_XEN_X86_CONF_OPTS += --disable-xen
endif

ifeq ($(BR2_PACKAGE_VIRMO_XEN_X86_TOOLS),y)
VIRMO_XEN_X86_DEPENDENCIES += libaio ncurses openssl util-linux yajl zlib
VIRMO_XEN_X86_MAKE_OPTS += dist-tools
VIRMO_XEN_X86_INSTALL_TARGET_OPTS += DESTDIR=$(TARGET_DIR) install-tools

# Python bindings are built for the build host's Python when both are x86-64.
# Nothing on the device uses them.
define VIRMO_XEN_X86_DROP_PYTHON
	$(SED) '/^SUBDIRS-y += python$$/d' $(@D)/tools/Makefile
endef
VIRMO_XEN_X86_POST_PATCH_HOOKS += VIRMO_XEN_X86_DROP_PYTHON

# The names of Buildroot's own package. xendomains is left out: the agent
# alone starts, saves and stops domains.
define VIRMO_XEN_X86_INSTALL_INIT_SYSV
	mv $(TARGET_DIR)/etc/init.d/xencommons $(TARGET_DIR)/etc/init.d/S50xencommons
	rm -f $(TARGET_DIR)/etc/init.d/xen-watchdog \
		$(TARGET_DIR)/etc/init.d/xendomains \
		$(TARGET_DIR)/etc/init.d/xendriverdomain
endef
define VIRMO_XEN_X86_INSTALL_INIT_SYSTEMD
	rm -f $(TARGET_DIR)/etc/init.d/xencommons \
		$(TARGET_DIR)/etc/init.d/xen-watchdog \
		$(TARGET_DIR)/etc/init.d/xendomains \
		$(TARGET_DIR)/etc/init.d/xendriverdomain
endef
else
VIRMO_XEN_X86_INSTALL_TARGET = NO
VIRMO_XEN_X86_CONF_OPTS += --disable-tools
endif

$(eval $(autotools-package))
