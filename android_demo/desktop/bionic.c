/* The part of Android's C library that TensorFlow Lite's Android library for x86_64 needs, on top of glibc.
 *
 * The AAR of the app has no build for desktops. Its x86_64 library differs from a desktop build only in the C library that
 * it is linked with. Almost all functions have the same meaning in glibc. The others are here; build.py renames them in a
 * copy of the library (see `desktop_library`), so that the loader does not bind glibc's.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* In bionic stdin, stdout and stderr are elements of an array, 152 bytes each on 64 bits. */
enum { BIONIC_FILE_BYTES = 152 };
char __sF[3 * BIONIC_FILE_BYTES];

static FILE *real(FILE *file) {
    char *at = (char *)file;
    if (at == __sF) return stdin;
    if (at == __sF + BIONIC_FILE_BYTES) return stdout;
    if (at == __sF + 2 * BIONIC_FILE_BYTES) return stderr;
    return file;
}

int bprintf(FILE *file, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int count = vfprintf(real(file), format, values);
    va_end(values);
    return count;
}
int bfprintf(FILE *file, const char *format, va_list values) { return vfprintf(real(file), format, values); }
int bputc(int byte, FILE *file) { return fputc(byte, real(file)); }
int bflush(FILE *file) { return fflush(file == NULL ? NULL : real(file)); }
size_t bwrite(const void *from, size_t size, size_t count, FILE *file) { return fwrite(from, size, count, real(file)); }
int bileno(FILE *file) { return fileno(real(file)); }
int bclose(FILE *file) { return fclose(real(file)); }

int *__errno(void) { return __errno_location(); }
int __xpg_strerror_r(int error, char *text, size_t size); /* glibc's, in the form that POSIX has */
int btrerror_r(int error, char *text, size_t size) { return __xpg_strerror_r(error, text, size); }
size_t __strlen_chk(const char *text, size_t size) { (void)size; return strlen(text); }

/* Bionic has other numbers for the names of sysconf. */
long bysconf(int name) {
    switch (name) {
        case 0x27: case 0x28: return sysconf(_SC_PAGESIZE);
        case 0x60: return sysconf(_SC_NPROCESSORS_CONF);
        case 0x61: return sysconf(_SC_NPROCESSORS_ONLN);
        default: errno = EINVAL; return -1;
    }
}

/* In bionic a library finds its own symbols through RTLD_DEFAULT. */
void *blsym(void *library, const char *name) {
    return dlsym(library != NULL ? library : dlopen("libtensorflowlite_jni.so", RTLD_NOLOAD | RTLD_LAZY), name);
}

/* TensorFlow Lite uses XNNPACK since API level 20. */
int __system_property_get(const char *name, char *value) {
    strcpy(value, strcmp(name, "ro.build.version.sdk") == 0 ? "34" : "");
    return (int)strlen(value);
}

void android_set_abort_message(const char *message) { fprintf(stderr, "%s\n", message); }
int __android_log_vprint(int priority, const char *tag, const char *format, va_list values) {
    (void)priority, (void)tag, (void)format, (void)values; /* the library also writes the message to stderr */
    return 0;
}
