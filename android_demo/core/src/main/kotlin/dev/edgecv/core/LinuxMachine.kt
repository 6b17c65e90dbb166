package dev.edgecv.core

import java.io.File
import java.io.IOException

/** Values from /proc and /sys; null if they cannot be read, as is often the case for apps on Android. */
class LinuxMachine(private val root: File = File("/")) {
    fun memory(): Memory? = memory(read("proc/self/status") ?: return null)

    /** The current clock frequency of the fastest core. */
    fun clockMhz(): Double? = (0 until MOST_CORES)
        .mapNotNull { read("sys/devices/system/cpu/cpu$it/cpufreq/scaling_cur_freq")?.trim()?.toDoubleOrNull() }
        .maxOrNull()?.div(1000)

    private fun read(path: String): String? = try {
        File(root, path).readText()
    } catch (_: IOException) {
        null
    }

    companion object {
        private const val MOST_CORES = 64

        /** Resident memory from the text of `/proc/self/status`. */
        fun memory(status: String): Memory? {
            fun bytes(name: String) =
                Regex("^$name:\\s+(\\d+) kB$", RegexOption.MULTILINE).find(status)?.groupValues?.get(1)?.toLong()?.times(1024)
            return Memory(bytes("VmRSS") ?: return null, bytes("VmHWM") ?: return null)
        }
    }
}
