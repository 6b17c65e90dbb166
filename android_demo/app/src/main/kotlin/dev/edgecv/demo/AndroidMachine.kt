package dev.edgecv.demo

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import dev.edgecv.core.LinuxMachine
import dev.edgecv.core.Machine
import dev.edgecv.core.Memory

/** The phone that runs the app. Apps may read only the battery's temperature. */
class AndroidMachine(private val context: Context) : Machine {
    private val linux = LinuxMachine()
    private val cores = Runtime.getRuntime().availableProcessors()

    override val host = "${Build.MANUFACTURER} ${Build.MODEL}, Android ${Build.VERSION.RELEASE}, $cores cores"

    override val description = mapOf(
        "board" to Build.BOARD,
        "hardware" to Build.HARDWARE,
        "abi" to Build.SUPPORTED_ABIS.first(),
        "android" to "${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT})",
        "build" to Build.DISPLAY,
        "temperature_of" to "battery",
    )

    override fun temperatureC(): Double? {
        val battery = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED)) ?: return null
        val tenths = battery.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, Int.MIN_VALUE)
        return if (tenths == Int.MIN_VALUE) null else tenths / 10.0
    }

    override fun clockMhz(): Double? = linux.clockMhz()

    override fun memory(): Memory? = linux.memory()
}
