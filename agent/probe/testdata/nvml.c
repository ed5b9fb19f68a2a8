/* A libnvidia-ml.so.1 of a machine with A100s, as far as the agent calls it. Compiled by the test with what is sick. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef INIT
#define INIT 0
#endif
#ifndef DEVICES
#define DEVICES 2
#endif
#ifndef HANDLE
#define HANDLE 0
#endif
#ifndef ECC
#define ECC 0
#endif
#ifndef REMAP_PENDING
#define REMAP_PENDING 0
#endif
#ifndef REMAP_FAILED
#define REMAP_FAILED 0
#endif
#ifndef MIG_PENDING
#define MIG_PENDING 0
#endif
#ifndef XID
#define XID 0
#endif

enum { TIMEOUT = 10 };

typedef struct {
	void *device;
	unsigned long long type, data;
	unsigned int gpu_instance, compute_instance;
} event;

int nvmlInit_v2(void)
{
#ifdef HANG
	for (;;)
		pause();
#endif
	return INIT;
}
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "error"; }
int nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	strncpy(version, "570.00", length);
	return 0;
}
int nvmlDeviceGetCount_v2(unsigned int *count)
{
#ifdef CRASH
	abort();
#endif
	*count = DEVICES;
	return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device)
{
	*device = (void *)(long)(index + 1);
	return HANDLE;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length)
{
	strncpy(uuid, (long)device == 1 ? "GPU-1" : "GPU-2", length);
	return 0;
}
int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *count)
{
	*count = ECC;
	return 0;
}
int nvmlDeviceGetRemappedRows(void *device, unsigned int *corrected, unsigned int *uncorrected, unsigned int *pending, unsigned int *failed)
{
	*corrected = *uncorrected = 0;
	*pending = REMAP_PENDING;
	*failed = REMAP_FAILED;
	return 0;
}
int nvmlDeviceGetMigMode(void *device, unsigned int *current, unsigned int *next)
{
	*current = 0;
	*next = MIG_PENDING;
	return 0;
}
int nvmlEventSetCreate(void **set)
{
	*set = (void *)1;
	return 0;
}
int nvmlEventSetFree(void *set) { return 0; }
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) { return 0; }
int nvmlEventSetWait_v2(void *set, event *out, unsigned int milliseconds)
{
	static int sent;
	if (XID && !sent) {
		/* After the first look of the probe. */
		usleep(300000);
		sent = 1;
		memset(out, 0, sizeof *out);
		out->device = (void *)1;
		out->type = 8;
		out->data = XID;
		return 0;
	}
	usleep(milliseconds * 1000);
	return TIMEOUT;
}
