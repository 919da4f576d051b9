################################################################################
#
# python-pyxs
#
################################################################################

PYTHON_PYXS_VERSION = 0.4.1
PYTHON_PYXS_SOURCE = pyxs-$(PYTHON_PYXS_VERSION).tar.gz
# From where Buildroot gets its other Python packages; there, the path of a
# file is its own BLAKE2b digest.
PYTHON_PYXS_SERVER = $(firstword $(subst /packages/, ,$(PYTHON_REQUESTS_SITE)))
PYTHON_PYXS_SITE = $(PYTHON_PYXS_SERVER)/packages/45/8b/c1aab7aa1b1c63017dc2d2be3426206af5b5a325b611a202c9ef32d65cc1
PYTHON_PYXS_SETUP_TYPE = setuptools
PYTHON_PYXS_LICENSE = LGPL-3.0
PYTHON_PYXS_LICENSE_FILES = LICENSE

# Its tests' runner is asked for at build time; nothing is tested here.
define PYTHON_PYXS_DROP_TEST_RUNNER
	$(SED) '/^ *setup_requires=/d' $(@D)/setup.py
endef
PYTHON_PYXS_POST_PATCH_HOOKS += PYTHON_PYXS_DROP_TEST_RUNNER

$(eval $(python-package))
