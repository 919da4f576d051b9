# shellcheck shell=bash
# Sourced by image/demo and tests/run: Debian packages and the Python environment that they need, installed if missing.

export VIRMO_CACHE="${VIRMO_CACHE:-$HOME/.cache/virmo}"

# need_packages PACKAGE…: installs those that are missing, from wherever this machine's apt takes packages.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        echo "$0: must be root to install: ${missing[*]}" >&2
        exit 1
    fi
    echo "== install ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# use_venv EXTRA…: puts an environment with the distribution's requirements and these extras first in PATH. There is one
# for each set of requirements, outside the repository, shared by all clones.
use_venv() {
    local requirements key venv
    requirements="$(python3 image/requirements.py "$@")"
    key="$(printf '%s\n' "$requirements" "$(python3 -V)" | sha256sum | cut -c1-16)"
    venv="$VIRMO_CACHE/venv-$key"
    if [ ! -e "$venv/complete" ]; then
        echo "== make the Python environment $venv"
        rm -rf "$venv"
        python3 -m venv "$venv"
        # shellcheck disable=SC2086 # one word for each requirement
        "$venv/bin/pip" install -qq --disable-pip-version-check $requirements
        touch "$venv/complete"
    fi
    PATH="$venv/bin:$PATH"
}
