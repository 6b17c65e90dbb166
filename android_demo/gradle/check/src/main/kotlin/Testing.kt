@file:Suppress("PackageDirectoryMismatch")

package org.gradle.api.tasks.testing

interface Test {
    fun useJUnitPlatform()

    fun jvmArgs(vararg arguments: Any)

    fun systemProperty(name: String, value: Any)

    fun setForkEvery(tests: Long)
}
