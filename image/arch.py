"""What differs between the architectures, as one row of facts each.

No other module asks "which architecture is this?": it reads a field. The rows' boot arguments were measured (Xen 4.17,
QEMU 7.2); the reasons stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from image.errors import ImageError


@dataclass(frozen=True, slots=True)
class BootFiles:
    """The files QEMU loads itself: the hypervisor, uncompressed, and dom0's kernel and initial RAM disk."""

    hypervisor: Path
    kernel: Path
    ramdisk: Path


BootLoader = Callable[[BootFiles, str, str], list[str]]


def _multiboot(files: BootFiles, xen_args: str, kernel_args: str) -> list[str]:
    """x86: QEMU is a multiboot loader; dom0's kernel and its command line are the first module."""
    _refuse_comma(kernel_args)
    modules = f"{files.kernel} {kernel_args},{files.ramdisk}"
    return ["-kernel", str(files.hypervisor), "-append", xen_args, "-initrd", modules]


def _guest_loader(files: BootFiles, xen_args: str, kernel_args: str) -> list[str]:
    """Arm: the guest-loader device puts dom0's files in memory and names them in the device tree."""
    _refuse_comma(kernel_args)
    return [
        *("-kernel", str(files.hypervisor), "-append", xen_args),
        *("-device", f"guest-loader,addr=0x49000000,kernel={files.kernel},bootargs={kernel_args}"),
        *("-device", f"guest-loader,addr=0x4d000000,initrd={files.ramdisk}"),
    ]


def _refuse_comma(kernel_args: str) -> None:
    if "," in kernel_args:
        raise ImageError(f"dom0's kernel arguments must not contain a comma (QEMU splits there): {kernel_args}")


@dataclass(frozen=True, slots=True)
class Arch:
    """One architecture, in everybody's words."""

    name: str
    debian: str
    dom0_kernel: str
    guest_kernel: str
    hypervisor_package: str
    hypervisor_file: str
    #: the program that emulates an hvm guest's machine; none where there are no such guests
    device_model_packages: tuple[str, ...]
    guest_types: tuple[str, ...]
    guest_args: str
    elf_machine: int
    library_dir: str
    loader: str
    qemu: str
    qemu_package: str
    machine: str
    tcg_cpu: str
    kvm_cpu: str
    kvm_flags: tuple[str, ...]
    kvm_nested: tuple[Path, ...]
    emulated_xen_args: str
    emulated_kernel_args: str
    xen_console: str
    boot_loader: BootLoader
    devices: tuple[str, ...]
    #: UEFI in QEMU, and GRUB on it: the way real boards start.
    firmware: Path
    firmware_package: str
    efi_name: str
    grub_target: str
    grub_package: str
    grub_modules: tuple[str, ...]
    grub_xen: str


ARCHES = {
    row.name: row
    for row in (
        Arch(
            name="x86_64",
            debian="amd64",
            dom0_kernel="linux-image-amd64",
            # The cloud flavour has Xen PV and PVH, ext4 built in, and is half the size; it cannot be a dom0.
            guest_kernel="linux-image-cloud-amd64",
            hypervisor_package="xen-hypervisor-4.17-amd64",
            hypervisor_file="xen-4.17-amd64.gz",
            device_model_packages=("qemu-system-xen",),
            guest_types=("pv", "pvh"),
            guest_args="",
            elf_machine=62,
            library_dir="x86_64-linux-gnu",
            loader="lib64/ld-linux-x86-64.so.2",
            qemu="qemu-system-x86_64",
            qemu_package="qemu-system-x86",
            machine="pc",
            # SMAP on: dom0's kernel dies at once with #PF in Xen's create_bounce_frame. RDTSCP on: QEMU reports it as
            # RDTSC, and Xen crashes the PVH guest that uses it. XSAVE on: a guest's XSETBV goes past Xen, which then
            # reports sizes that do not fit ("XSAVE consistency problem").
            tcg_cpu="max,smap=off,smep=off,umip=off,rdtscp=off,xsave=off",
            kvm_cpu="host",
            kvm_flags=("svm", "vmx"),
            kvm_nested=(Path("/sys/module/kvm_amd/parameters/nested"), Path("/sys/module/kvm_intel/parameters/nested")),
            # An emulated processor has nothing to mitigate, and each entry to Xen or the kernel pays for it.
            emulated_xen_args="spec-ctrl=no",
            emulated_kernel_args="mitigations=off",
            xen_console="console=com1",
            boot_loader=_multiboot,
            devices=("virtio-blk-pci", "virtio-net-pci", "virtio-rng-pci"),
            firmware=Path("/usr/share/ovmf/OVMF.fd"),
            firmware_package="ovmf",
            efi_name="BOOTX64.EFI",
            grub_target="x86_64-efi",
            grub_package="grub-efi-amd64-bin",
            grub_modules=("multiboot2", "efi_gop"),
            grub_xen="""\
multiboot2 $system/xen @CONSOLE@ dom0_mem=1024M,max:1024M $xen_args
module2 $system/vmlinuz $arguments
module2 $system/initrd.img
boot""",
        ),
        Arch(
            name="arm64",
            debian="arm64",
            dom0_kernel="linux-image-arm64",
            guest_kernel="linux-image-cloud-arm64",
            hypervisor_package="xen-hypervisor-4.17-arm64",
            hypervisor_file="xen-4.17-arm64",
            device_model_packages=(),
            guest_types=("pvh",),
            # Memory set aside for devices that a guest has not: without these the RAM disk does not fit into 128 MiB.
            # Linux on Arm does not tell Xen of a panic: without "panic=" the domain would be there for ever.
            guest_args="cma=0 swiotlb=noforce panic=1",
            elf_machine=183,
            library_dir="aarch64-linux-gnu",
            loader="lib/ld-linux-aarch64.so.1",
            qemu="qemu-system-aarch64",
            qemu_package="qemu-system-arm",
            # gic-version=2 with virtio-blk-device hung at the first "xl create".
            machine="virt,virtualization=on,gic-version=3,acpi=off",
            tcg_cpu="cortex-a53",
            kvm_cpu="host",
            # Nested virtualisation on Arm hosts is not offered by Debian 12's kernel: always emulated.
            kvm_flags=(),
            kvm_nested=(),
            emulated_xen_args="",
            emulated_kernel_args="mitigations=off",
            xen_console="console=dtuart dtuart=/pl011@9000000",
            boot_loader=_guest_loader,
            devices=("virtio-blk-pci", "virtio-net-pci", "virtio-rng-pci"),
            firmware=Path("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
            firmware_package="qemu-efi-aarch64",
            efi_name="BOOTAA64.EFI",
            grub_target="arm64-efi",
            grub_package="grub-efi-arm64-bin",
            grub_modules=("xen_boot",),
            grub_xen="""\
xen_hypervisor $system/xen @CONSOLE@ dom0_mem=1024M,max:1024M $xen_args
xen_module $system/vmlinuz $arguments
xen_module $system/initrd.img
boot""",
        ),
    )
}


def arch_named(name: str) -> Arch:
    """The row of that name."""
    arch = ARCHES.get(name)
    if arch is None:
        raise ImageError(f"no such architecture: {name}", todo=f"choose one of {', '.join(ARCHES)}")
    return arch
