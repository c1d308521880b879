/* Android's C library in terms of this computer's, as far as TensorFlow Lite's library for Android on
 * x86_64 needs it: so the tests run the very library that is in the APK. Most functions are the same
 * here; each is exported under Android's symbol version, LIBC, and jumps to its namesake.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPORT(function, name) __asm__(".symver " #function "," #name "@LIBC")
#define FORWARD(name)                                                            \
    __asm__(".text\n.globl same_" #name "\n.type same_" #name ",@function\nsame_" \
            #name ": jmp *" #name "@GOTPCREL(%rip)\n.symver same_" #name "," #name "@LIBC");

#define SAME_AS_HERE(X) \
    X(__cxa_atexit) X(__cxa_finalize) X(__memmove_chk) X(__open_2) X(__read_chk) \
    X(__stack_chk_fail) X(__vsnprintf_chk) X(abort) X(atan2) X(atan2f) X(bsearch) \
    X(clock_gettime) X(close) X(closelog) X(cos) X(cosf) X(dl_iterate_phdr) X(dlclose) \
    X(dlerror) X(dlopen) X(erfcf) X(exit) X(exp) X(expf) X(expm1f) X(flock) X(fmodf) \
    X(fclose) X(fopen) X(fread) X(free) X(freelocale) X(frexp) X(fstat) X(fsync) \
    X(getenv) X(getpagesize) X(getuid) X(hypot) X(hypotf) X(ldexp) X(log) X(log1p) X(logf) X(madvise) \
    X(memchr) X(memcmp) X(memcpy) X(memmove) X(memset) X(mmap) X(mprotect) X(mremap) \
    X(munmap) X(nanf) X(nanosleep) X(newlocale) X(open) X(openlog) X(pow) \
    X(powf) X(pthread_cond_broadcast) X(pthread_cond_destroy) X(pthread_cond_init) \
    X(pthread_cond_signal) X(pthread_cond_wait) X(pthread_create) X(pthread_equal) \
    X(pthread_getspecific) X(pthread_join) X(pthread_key_create) X(pthread_key_delete) \
    X(pthread_mutex_destroy) X(pthread_mutex_init) X(pthread_mutex_lock) X(pthread_mutex_unlock) \
    X(pthread_once) X(pthread_rwlock_rdlock) X(pthread_rwlock_unlock) X(pthread_rwlock_wrlock) \
    X(pthread_self) X(pthread_setspecific) X(qsort) X(read) X(rename) X(sincos) \
    X(sincosf) X(sinf) X(snprintf) X(strcmp) X(strerror) X(strlen) X(strncmp) X(strncpy) \
    X(strtod) X(strtol) X(strtoll_l) X(strtoull_l) X(syscall) X(syslog) X(tanhf) X(time) \
    X(vasprintf) X(vsnprintf) X(write)
SAME_AS_HERE(FORWARD)

/* stdin, stdout and stderr are three of Android's own structures there. */
char streams[3][152];
EXPORT(streams, __sF);

static FILE *here(FILE *file) {
    FILE *standard[] = {stdin, stdout, stderr};
    for (int i = 0; i < 3; i++) {
        if ((char *)file == streams[i]) {
            return standard[i];
        }
    }
    return file;
}

int our_vfprintf(FILE *file, const char *format, va_list values) {
    return vfprintf(here(file), format, values);
}
EXPORT(our_vfprintf, vfprintf);

int our_fprintf(FILE *file, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int written = vfprintf(here(file), format, values);
    va_end(values);
    return written;
}
EXPORT(our_fprintf, fprintf);

int our_fputc(int c, FILE *file) { return fputc(c, here(file)); }
EXPORT(our_fputc, fputc);

size_t our_fwrite(const void *data, size_t size, size_t count, FILE *file) {
    return fwrite(data, size, count, here(file));
}
EXPORT(our_fwrite, fwrite);

int our_fflush(FILE *file) { return fflush(here(file)); }
EXPORT(our_fflush, fflush);

int our_fileno(FILE *file) { return fileno(here(file)); }
EXPORT(our_fileno, fileno);

int *our_errno(void) { return &errno; }
EXPORT(our_errno, __errno);

size_t our_strlen_chk(const char *text, size_t size) {
    (void)size;
    return strlen(text);
}
EXPORT(our_strlen_chk, __strlen_chk);

/* XNNPACK's kernels for AVX-512, which no phone has, want parameters aligned to 64 bytes, and this
 * version does not ask for so much. */
void *our_memalign(size_t alignment, size_t size) {
    return memalign(alignment < 64 ? 64 : alignment, size);
}
EXPORT(our_memalign, memalign);

int our_posix_memalign(void **block, size_t alignment, size_t size) {
    *block = our_memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}
EXPORT(our_posix_memalign, posix_memalign);

void *our_malloc(size_t size) { return memalign(64, size); }
EXPORT(our_malloc, malloc);

void *our_calloc(size_t count, size_t size) {
    size_t bytes;
    void *block = __builtin_mul_overflow(count, size, &bytes) ? NULL : memalign(64, bytes);
    return block ? memset(block, 0, bytes) : NULL;
}
EXPORT(our_calloc, calloc);

void *our_realloc(void *block, size_t size) {
    void *larger = memalign(64, size);
    if (larger && block) {
        size_t known = malloc_usable_size(block);
        memcpy(larger, block, known < size ? known : size);
        free(block);
    }
    return larger;
}
EXPORT(our_realloc, realloc);

/* Of Android's properties the library wants its version: XNNPACK is for 20 and later. */
int our_system_property_get(const char *name, char *value) {
    strcpy(value, strcmp(name, "ro.build.version.sdk") == 0 ? "34" : "");
    return (int)strlen(value);
}
EXPORT(our_system_property_get, __system_property_get);

void our_set_abort_message(const char *message) { fprintf(stderr, "%s\n", message); }
EXPORT(our_set_abort_message, android_set_abort_message);

/* POSIX's, not GNU's. */
int __xpg_strerror_r(int number, char *text, size_t size);
int our_strerror_r(int number, char *text, size_t size) {
    return __xpg_strerror_r(number, text, size);
}
EXPORT(our_strerror_r, strerror_r);

/* Android's numbers, from bits/sysconf.h. */
long our_sysconf(int name) {
    switch (name) {
        case 0x27:
        case 0x28:
            return sysconf(_SC_PAGESIZE);
        case 0x60:
            return sysconf(_SC_NPROCESSORS_CONF);
        case 0x61:
            return sysconf(_SC_NPROCESSORS_ONLN);
        default:
            errno = EINVAL;
            return -1;
    }
}
EXPORT(our_sysconf, sysconf);

/* Without a handle, Android also looks into the library that asks: so it finds its own XNNPACK. */
void *our_dlsym(void *handle, const char *name) {
    void *found = dlsym(handle, name);
    Dl_info caller;
    if (found || handle || !dladdr(__builtin_return_address(0), &caller)) {
        return found;
    }
    handle = dlopen(caller.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (handle) {
        found = dlsym(handle, name);
        dlclose(handle);
    }
    return found;
}
EXPORT(our_dlsym, dlsym);

/* The log, which has no symbol version. */
int __android_log_vprint(int priority, const char *tag, const char *format, va_list values) {
    (void)priority;
    fprintf(stderr, "%s: ", tag);
    vfprintf(stderr, format, values);
    return fputc('\n', stderr);
}
