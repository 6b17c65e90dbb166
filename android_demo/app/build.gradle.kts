plugins {
    alias(libs.plugins.android.application) // it compiles Kotlin itself
}

android {
    namespace = "dev.edgecv.demo"
    compileSdk = 36

    defaultConfig {
        applicationId = "dev.edgecv.demo"
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
        ndk { abiFilters += listOf("arm64-v8a", "armeabi-v7a", "x86_64") }
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            isShrinkResources = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "proguard-rules.pro")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    androidResources { noCompress += "tflite" } // models are mapped from the APK

    // The tests in src/test need what `make android` makes: TensorFlow Lite's library for this desktop, models and Python's predictions.
    testOptions {
        unitTests {
            isIncludeAndroidResources = true
            all {
                it.useJUnitPlatform()
                it.setForkEvery(1)
                it.jvmArgs("-XX:MaxDirectMemorySize=64m", "-Djava.library.path=$rootDir/build/desktop")
                for (name in listOf("io", "lang", "util")) it.jvmArgs("--add-opens=java.base/java.$name=ALL-UNNAMED")
                it.systemProperty("edgecv.desktop", "$rootDir/build/desktop")
                it.systemProperty("edgecv.vectors", "$rootDir/build/vectors")
                it.systemProperty("edgecv.docs", "$rootDir/../docs")
            }
        }
    }
}

// The tests' native library is TensorFlow Lite's; src/test/kotlin/androidx has what Robolectric needs of androidx.
configurations.matching { it.name.endsWith("UnitTestRuntimeClasspath") }.configureEach {
    exclude(group = "com.google.ai.edge.litert")
    exclude(group = "androidx.test")
}

dependencies {
    implementation(project(":core"))
    implementation(libs.serialization.json)
    // 16 KB pages need LiteRT 1.4 or later; its classes keep the package org.tensorflow.lite.
    implementation(libs.litert)
    implementation(libs.litert.gpu)
    implementation(libs.litert.gpu.api)
    testImplementation(libs.junit.jupiter)
    testImplementation(libs.robolectric)
    testRuntimeOnly(libs.junit.vintage)
    testRuntimeOnly(libs.junit.launcher)
    testRuntimeOnly(fileTree("$rootDir/build/aar") { include("tensorflow-lite*.jar") })
}
