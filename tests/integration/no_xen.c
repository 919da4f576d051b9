/* Lets the real C xenstored run where there is no Xen: stands in for the few calls it makes to the hypervisor.
 *
 * Preloaded by tests/integration. xenstored's option -D, meant for this, has been broken since 4.17 (it then has no
 * database, and crashes at the first request). There is one domain, dom0; event channels never ring; the page it shares
 * with dom0's kernel is a file of zeros in XENSTORED_RUNDIR. Clients come over the Unix socket.
 * Needs no headers, so that tcc alone can build it.
 */
typedef unsigned int uint32;
typedef unsigned long size_t;
extern char *getenv(const char *);
extern int snprintf(char *, size_t, const char *, ...);
extern int strcmp(const char *, const char *);
extern void *memset(void *, int, size_t);
extern void *dlsym(void *, const char *);
extern int pipe(int *);
#define RTLD_NEXT ((void *)-1L)

static const char *redirect(const char *path, char *buffer, size_t size)
{
    const char *name = !strcmp(path, "/proc/xen/xsd_kva")    ? "xsd_kva"
                       : !strcmp(path, "/proc/xen/xsd_port") ? "xsd_port"
                                                              : (const char *)0;
    if (!name)
        return path;
    snprintf(buffer, size, "%s/%s", getenv("XENSTORED_RUNDIR"), name);
    return buffer;
}

int open(const char *path, int flags, int mode)
{
    char buffer[512];
    int (*real)(const char *, int, int) = dlsym(RTLD_NEXT, "open");
    return real(redirect(path, buffer, sizeof buffer), flags, mode);
}

int open64(const char *path, int flags, int mode) { return open(path, flags, mode); }

/* libxenctrl: one domain, dom0. xc_dominfo_t begins with domid and ssidref; the flags after them stay 0: alive. */
void *xc_interface_open(void *logger, void *dombuild_logger, unsigned flags) { return (void *)1; }
int xc_interface_close(void *handle) { return 0; }
int xc_domain_getinfo(void *handle, uint32 first, unsigned count, uint32 *info)
{
    if (first != 0)
        return 0;
    info[0] = 0;
    return 1;
}

/* libxenevtchn: a descriptor that never becomes readable. */
static int ends[2];
void *xenevtchn_open(void *logger, unsigned flags) { return pipe(ends) ? (void *)0 : (void *)1; }
void *xenevtchn_fdopen(void *logger, int fd, unsigned flags) { return (void *)1; }
int xenevtchn_fd(void *handle) { return ends[0]; }
int xenevtchn_bind_interdomain(void *handle, uint32 domid, uint32 port) { return 7; }
int xenevtchn_bind_virq(void *handle, unsigned virq) { return 8; }
int xenevtchn_pending(void *handle) { return -1; }
int xenevtchn_unmask(void *handle, uint32 port) { return 0; }
int xenevtchn_unbind(void *handle, uint32 port) { return 0; }
int xenevtchn_notify(void *handle, uint32 port) { return 0; }

/* libxengnttab: no guest's page is ever mapped. */
void *xengnttab_open(void *logger, unsigned flags) { return (void *)1; }
int xengnttab_close(void *handle) { return 0; }
int xengnttab_set_max_grants(void *handle, uint32 count) { return 0; }
void *xengnttab_map_grant_ref(void *handle, uint32 domid, uint32 ref, int protection) { return (void *)0; }
int xengnttab_unmap(void *handle, void *start, uint32 count) { return 0; }
