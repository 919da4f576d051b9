include $(sort $(wildcard $(BR2_EXTERNAL_VIRMO_PATH)/package/*/*.mk))

# Buildroot's own Xen (Arm) knows System V only. With systemd, xenstored must
# say by itself when it is ready, as its own units do; and the name of the
# folder of its settings must not depend on what the build host has in /etc.
ifeq ($(BR2_PACKAGE_VIRMO_AGENT),y)
XEN_CONF_OPTS += \
	--with-sysconfig-leaf-dir=default \
	$(VIRMO_AGENT_XEN_CONF_OPTS)
endif
