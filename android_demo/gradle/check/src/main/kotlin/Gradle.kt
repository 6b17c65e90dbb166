// The part of Gradle's API that the android block and the plugin's API use; Gradle itself is not on Maven Central.
@file:Suppress("unused", "PackageDirectoryMismatch")

package org.gradle.api

interface Named

interface Action<T>

interface NamedDomainObjectContainer<T>

interface ExtensiblePolymorphicDomainObjectContainer<T>

enum class JavaVersion { VERSION_11 }
