################################################################################
#
# virmo-guest-shim
#
################################################################################

VIRMO_GUEST_SHIM_VERSION = 0.1.0
# A clone builds what it contains: the source is the folder above this tree.
VIRMO_GUEST_SHIM_SITE = $(BR2_EXTERNAL_VIRMO_PATH)/..
VIRMO_GUEST_SHIM_SITE_METHOD = local
VIRMO_GUEST_SHIM_LICENSE = Apache-2.0
VIRMO_GUEST_SHIM_LICENSE_FILES = LICENSE
VIRMO_GUEST_SHIM_DEPENDENCIES = host-python3

VIRMO_GUEST_SHIM_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = \
	--exclude=__pycache__ \
	--include=/guest_shim/*** \
	--include=/LICENSE \
	--exclude=*

define VIRMO_GUEST_SHIM_BUILD_CMDS
	cd $(@D) && $(HOST_DIR)/bin/python3 -m guest_shim.build pyz $(@D)
endef

define VIRMO_GUEST_SHIM_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/virmo-guest-shim.pyz \
		$(TARGET_DIR)/usr/bin/virmo-guest-shim
endef

define VIRMO_GUEST_SHIM_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/guest_shim/packaging/virmo-guest-shim.service \
		$(TARGET_DIR)/usr/lib/systemd/system/virmo-guest-shim.service
endef

define VIRMO_GUEST_SHIM_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(VIRMO_GUEST_SHIM_PKGDIR)/S95virmo-guest-shim \
		$(TARGET_DIR)/etc/init.d/S95virmo-guest-shim
endef

$(eval $(generic-package))
