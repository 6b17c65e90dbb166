package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotNull
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

class LinuxMachineTest {
    @Test
    fun `memory is read from the text of proc`() {
        assertEquals(Memory(2048, 4096), LinuxMachine.memory("Name:\tapp\nVmHWM:\t       4 kB\nVmRSS:\t       2 kB\n"))
        assertNull(LinuxMachine.memory("Name:\tapp\n"))
        assertNotNull(LinuxMachine().memory())
    }

    @Test
    fun `the clock is the fastest core's, and null if the system does not provide it`(@TempDir root: File) {
        assertNull(LinuxMachine(root).clockMhz())
        for ((core, kilohertz) in listOf(0 to 600_000, 7 to 2_850_000)) {
            val folder = File(root, "sys/devices/system/cpu/cpu$core/cpufreq").apply { mkdirs() }
            File(folder, "scaling_cur_freq").writeText("$kilohertz\n")
        }
        assertEquals(2850.0, LinuxMachine(root).clockMhz())
    }
}
