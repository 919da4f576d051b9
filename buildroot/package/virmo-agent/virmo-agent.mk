################################################################################
#
# virmo-agent
#
################################################################################

VIRMO_AGENT_VERSION = 0.1.0
# A clone builds what it contains: the source is the folder above this tree.
VIRMO_AGENT_SITE = $(BR2_EXTERNAL_VIRMO_PATH)/..
VIRMO_AGENT_SITE_METHOD = local
VIRMO_AGENT_SETUP_TYPE = setuptools
VIRMO_AGENT_LICENSE = Apache-2.0
VIRMO_AGENT_LICENSE_FILES = LICENSE

# Only what goes onto the device, so that nothing else makes it build again.
VIRMO_AGENT_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = \
	--exclude=__pycache__ \
	--include=/dom0_agent/*** \
	--include=/guest_shim/*** \
	--include=/image/ \
	--include=/image/files/*** \
	--include=/LICENSE \
	--include=/README.md \
	--include=/pyproject.toml \
	--include=/setup.cfg \
	--exclude=*

# setup.cfg names the programs of the whole distribution. The server's do not
# belong on a device, and the shim is for guests.
define VIRMO_AGENT_DROP_OTHER_PROGRAMS
	rm -f $(TARGET_DIR)/usr/bin/virmo \
		$(TARGET_DIR)/usr/bin/virmo-server \
		$(TARGET_DIR)/usr/bin/virmo-guest-shim
endef
VIRMO_AGENT_POST_INSTALL_TARGET_HOOKS += VIRMO_AGENT_DROP_OTHER_PROGRAMS

define VIRMO_AGENT_INSTALL_EXAMPLE
	$(INSTALL) -D -m 0644 $(VIRMO_AGENT_PKGDIR)/agent.yaml.example \
		$(TARGET_DIR)/usr/share/virmo-agent/agent.yaml.example
endef
VIRMO_AGENT_POST_INSTALL_TARGET_HOOKS += VIRMO_AGENT_INSTALL_EXAMPLE

# The unit is the one of the Debian image: one file, one behaviour. It wants
# a xen.service, which Debian makes of an init script; here it is ours.
define VIRMO_AGENT_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 \
		$(@D)/image/files/dom0/etc/systemd/system/virmo-agent.service \
		$(TARGET_DIR)/usr/lib/systemd/system/virmo-agent.service
	$(INSTALL) -D -m 0644 $(VIRMO_AGENT_PKGDIR)/xen.service \
		$(TARGET_DIR)/usr/lib/systemd/system/xen.service
	$(INSTALL) -D -m 0644 $(VIRMO_AGENT_PKGDIR)/50-virmo.preset \
		$(TARGET_DIR)/usr/lib/systemd/system-preset/50-virmo.preset
endef

define VIRMO_AGENT_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(VIRMO_AGENT_PKGDIR)/S95virmo-agent \
		$(TARGET_DIR)/etc/init.d/S95virmo-agent
endef

# What Xen, of either package, is told for the init system chosen.
VIRMO_AGENT_XEN_CONF_OPTS = \
	$(if $(BR2_INIT_SYSTEMD),--enable-systemd,--disable-systemd) \
	--with-linux-backend-modules="xen-evtchn xen-gntdev xen-gntalloc xen-blkback xen-netback"

# What the agent does needs these, whatever else a board's kernel has.
define VIRMO_AGENT_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_XEN)
	$(call KCONFIG_ENABLE_OPT,CONFIG_XEN_BACKEND)
	$(call KCONFIG_ENABLE_OPT,CONFIG_XENFS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_XEN_DEV_EVTCHN)
	$(call KCONFIG_ENABLE_OPT,CONFIG_XEN_GNTDEV)
	$(call KCONFIG_ENABLE_OPT,CONFIG_XEN_GRANT_DEV_ALLOC)
endef

$(eval $(python-package))
